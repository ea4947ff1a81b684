"""`fst init`: a commented pipeline.toml to begin with."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fst_core.cli.options import PIPELINE, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

_DOCUMENTS = "documents"

# Of each table: the component to begin with, and the keys that most people change, with a value
# where the default is none.
_BEGINNING: dict[str, tuple[str | None, Mapping[str, Any]]] = {
    "run": (None, {"name": None}),
    "documents": ("text", {"train": _DOCUMENTS}),
    "tokenizer": ("bpe", {}),
    "dataset": (None, {"max_sample_length": None}),
    "model": ("gpt2", {"n_layer": None, "n_head": None, "n_embd": None}),
    "trainer": ("lightning", {"batch_size": None, "lightning.max_epochs": 10}),
    "sampler": ("standard", {"temperature": None}),
    "evaluate": ("perplexity", {}),
    "engine": ("local", {}),
}

_HEADER = """\
# A pipeline of FST: from documents to a model that writes.
#
#     fst check {file}    says whether anything is wrong here
#     fst run {file}      prepares, trains and evaluates what is not up to date
#
# A line such as `#seed = 228` holds a default; remove the `#` to change it.
"""


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path), default=PIPELINE)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
def command(path: Path, *, force: bool) -> None:
    """Write a pipeline with the defaults, explained, to PATH (pipeline.toml)."""
    from fst_core.errors import UserError

    if path.is_dir():
        path /= PIPELINE
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such directory")
    text = "\n".join(_lines(path)) + "\n"
    try:
        with path.open("w" if force else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{path}: there already. `fst init --force` replaces it.") from None
    tell(f"{path} is written. Put your documents in {_DOCUMENTS}, then: fst check {path}")


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of the file."""
    from fst_core.pipeline.pipeline import (
        ARRAYS,
        TABLES,
        DatasetSettings,
        RunSettings,
        default_name,
    )
    from fst_core.plugins import registry

    yield _HEADER.format(file=path)
    for name, (use, values) in _BEGINNING.items():
        kind = TABLES[name]
        if kind is None or use is None:
            cls = RunSettings if name == "run" else DatasetSettings
            yield f"[{name}]"
            yield from _keys(
                cls, {**values, "name": default_name(path)} if name == "run" else values
            )
        else:
            offer = registry().find(kind, use)
            others = [other for other in registry().names(kind) if other != use]
            yield from _comment(
                offer.component.summary + (f" Others: {', '.join(others)}." if others else "")
            )
            yield f"[[{name}]]" if name in ARRAYS else f"[{name}]"
            yield f'use = "{use}"'
            settings = offer.settings_class()
            if settings is not None:
                yield from _keys(settings, values)
                yield from _tables(name, f"fst describe {kind} {use}", settings, values)
        yield ""
    for use in registry().names("frontend"):
        yield from _comment(registry().find("frontend", use).component.summary)
        yield from ("# [[serve]]", f'# use = "{use}"', "")


def _keys(cls: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table's keys: first those that most people change, then the others as comments."""
    from fst_core.cli.fields import fields

    plain = [field for field in fields(cls) if "." not in field.name]
    for field in sorted(plain, key=lambda f: f.name not in values):
        yield from _comment(field.description)
        value = values.get(field.name)
        literal = field.literal if value is None else json.dumps(value, ensure_ascii=False)
        yield f"{'' if field.name in values else '#'}{field.name} = {literal}".rstrip()


def _tables(
    name: str, command: str, cls: type[BaseModel], values: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the tables inside of a table, of which only the keys that most people change."""
    from fst_core.cli.fields import fields

    nested = [field for field in fields(cls) if "." in field.name]
    for table in dict.fromkeys(field.name.rpartition(".")[0] for field in nested):
        yield ""
        yield from _comment(f"`{command}` lists all keys of this table.")
        yield f"[{name}.{table}]"
        for field in nested:
            if field.name in values:
                yield from _comment(field.description)
                yield f"{field.name.rpartition('.')[2]} = {json.dumps(values[field.name])}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")
