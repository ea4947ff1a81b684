"""`fst compare`: how two runs differ, in settings, figures and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fst_core.pipeline.runs import PastRun

_ABSENT: Final = "(absent)"


@click.command("compare")
@click.argument("first")
@click.argument("second")
@click.option(
    "--root", type=click.Path(path_type=Path), default="runs", show_default=True,
    help="The directory of all runs.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(first: str, second: str, root: Path, *, as_json: bool) -> None:
    """Show where the runs FIRST and SECOND differ: settings, figures, and what they wrote.

    A run is a directory, or NAME/NUMBER below the root; a NAME alone means its newest run.
    """
    from fst_core.cli import printable
    from fst_core.pipeline.runs import find_run

    runs = find_run(first, root), find_run(second, root)
    compared = {
        "runs": [str(run.directory) for run in runs],
        "settings": _differing(*(run.settings for run in runs)),
        "figures": _beside(*map(_figures, runs)),
        "samples": _beside(*(run.samples for run in runs)),
    }
    if as_json:
        click.echo(json.dumps(compared, indent=1, ensure_ascii=False))
        return
    for line in _lines(compared):
        click.echo(printable(line))


def _figures(run: PastRun) -> dict[str, float | None]:
    """Return all figures of a run, those of evaluators below their names."""
    measured = {
        f"{evaluator}.{name}": value
        for evaluator, figures in run.evaluation.items()
        for name, value in figures.items()
    }
    return {**run.figures, **measured}


def _beside(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return both values of every name; None where one run has none."""
    return {name: [first.get(name), second.get(name)] for name in {**first, **second}}


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    both = {
        name: [first.get(name, _ABSENT), second.get(name, _ABSENT)]
        for name in sorted(first.keys() | second.keys())
    }
    return {name: values for name, values in both.items() if values[0] != values[1]}


def _lines(compared: Mapping[str, Any]) -> Iterator[str]:
    from fst_core.cli.columns import columns

    names = compared["runs"]
    for title in ("settings", "figures"):
        rows = [(name, *map(_shown, values)) for name, values in compared[title].items()]
        if rows:
            yield f"\n{title}" if title != "settings" else title
            yield from (f"  {line}" for line in columns([("", *names), *rows]))
        elif title == "settings":
            yield "settings: the same"
    for prompt, texts in compared["samples"].items():
        yield f"\nsamples from {json.dumps(prompt, ensure_ascii=False)}"
        for name, text in zip(names, texts, strict=True):
            yield f"  {name}"
            yield from (f"  | {line}" for line in (text or "").split("\n"))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value[:12] if len(value) == 64 and value.isalnum() else value
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.5g}"
    return "" if value is None else json.dumps(value, ensure_ascii=False)
