"""`fst inspect`: what an artefact is, who made it, and from what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from fst_core.cli.options import path_argument, tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_LONGEST: Final = 160
"""Characters of a value that are shown at the most."""


@click.command("inspect")
@path_argument("directory")
@click.option("--json", "as_json", is_flag=True, help="Print fst.json as it is.")
@click.option("--verify", "verified", is_flag=True, help="Compare the sha256 of every file.")
def command(directory: Path, *, as_json: bool, verified: bool) -> None:
    """Show what DIRECTORY is, a dataset, a model or a run, and what made it.

    Nothing that it names is imported. The sizes of all files are compared in any case. Numbers are
    rounded and long values cut; --json has them whole.
    """
    from fst_core.artefacts.manifest import MANIFEST, read_manifest, verify
    from fst_core.cli import printable

    model = directory / "model"  # where a run keeps it
    if not (directory / MANIFEST).is_file() and (model / MANIFEST).is_file():
        directory = model
    manifest = verify(directory) if verified else read_manifest(directory)
    if as_json:
        click.echo(json.dumps(manifest, indent=1, ensure_ascii=False))
    else:
        click.echo(f"{manifest.get('kind')} {directory}")
        for line in _lines(manifest):
            click.echo(printable(line))
    if verified:
        tell(f"All {len(manifest['files'])} files are as they were written.")


def _lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines below the title: plain facts, then a paragraph for each table and component."""
    from fst_core.cli.columns import columns

    # A fingerprint's fields repeat the components' settings.
    left_out = {"kind", "fields", "files", "components"}
    facts = {name: value for name, value in manifest.items() if name not in left_out}
    plain = [(name, _shown(v)) for name, v in facts.items() if not isinstance(v, dict)]
    yield from (f"  {line}" for line in columns(plain))
    tables = {name: value for name, value in facts.items() if isinstance(value, dict)}
    for title, values in [*tables.items(), *_components(manifest), ("files", _files(manifest))]:
        yield f"\n{title}"
        rows = [(name, _shown(value)) for name, value in values.items()]
        yield from (f"  {line}" for line in columns(rows))


def _components(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each component's title and its settings."""
    components = manifest.get("components")
    for kind, said in components.items() if isinstance(components, dict) else ():
        for component in said if isinstance(said, list) else [said]:
            if isinstance(component, dict):
                part = {
                    name: component.get(name)
                    for name in ("plugin", "use", "distribution", "version")
                }
                settings = component.get("settings")
                title = "{} {plugin}/{use} of {distribution} {version}"
                yield (
                    title.format(kind.removesuffix("s"), **part),
                    settings if isinstance(settings, dict) else {},
                )


def _files(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{file['bytes']:,} bytes" for name, file in manifest["files"].items()}


def _shown(value: Any) -> str:
    """Return a value on one line; a long one is cut, a digest to what tells it from others."""
    line = _told(value)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _told(value: Any) -> str:
    from fst_core.pipeline.figures import shown_value

    if isinstance(value, str):
        return value[:12] if len(value) == 64 and value.isalnum() else value
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return shown_value(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(inner)}" for name, inner in value.items()) or "none"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
