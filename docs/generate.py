"""Write docs/settings.md from the settings classes; `make docs` runs it, and a test keeps it current."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fst_core.cli.fields import fields
from fst_core.pipeline.pipeline import ARRAYS, TABLES, DatasetSettings, RunSettings
from fst_core.plugins import DISTRIBUTION, registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fst_core.settings import Settings

TARGET = Path(__file__).parent / "settings.md"
CORE: dict[str, type[Settings]] = {"run": RunSettings, "dataset": DatasetSettings}


def settings() -> str:
    """Return the settings reference: every table of a pipeline.toml, every bundled component of it."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "Every table and key of a pipeline.toml, with the bundled components. This page is generated;"
    yield "`fst describe KIND NAME` prints the same for whatever is installed. A key without a default"
    yield "may be left out unless it says *needed*."
    for table, kind in TABLES.items():
        yield ""
        yield f"## [[{table}]]" if table in ARRAYS else f"## [{table}]"
        if kind is None:
            yield from _table(CORE[table])
            continue
        offers = [o for o in registry().of_kind(kind) if o.distribution == DISTRIBUTION]
        if not offers:
            yield ""
            yield f"No {kind} is bundled."
        for offer in offers:
            yield ""
            yield f'### use = "{offer.name}"'
            yield ""
            yield offer.component.summary
            cls = offer.settings_class()
            if cls is not None:
                yield from _table(cls)


def _table(cls: type[Settings]) -> Iterator[str]:
    yield ""
    yield "| Key | Type | Default | |"
    yield "|---|---|---|---|"
    for field in fields(cls):
        default = "*needed*" if field.required else f"`{field.literal}`" if field.literal else ""
        kind = field.type.replace("|", "\\|")
        yield f"| `{field.name}` | {kind} | {default} | {field.description} |"


if __name__ == "__main__":
    TARGET.write_text(settings(), "utf-8", newline="\n")
