"""`fst check`: everything that can be known of a pipeline before work begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fst_core.cli.options import overrides_option, pipeline_argument

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core.pipeline.pipeline import Pipeline


@click.command("check")
@pipeline_argument
@overrides_option
def command(pipeline: Path | None, overrides: tuple[str, ...]) -> None:
    """Check PIPELINE (pipeline.toml): names, settings, what has to be installed, the documents.

    Everything that is wrong is told at once. Nothing is written, and nothing is downloaded.
    """
    from fst_core.cli import printable
    from fst_core.cli.columns import columns
    from fst_core.errors import SettingsError
    from fst_core.pipeline.pipeline import TABLES, load_pipeline

    checked = load_pipeline(pipeline, overrides, needs=True)
    if problems := [*_documents(checked), *_trainer(checked)]:
        raise SettingsError(checked.file, problems)
    rows = [
        (part.place, part.offer.name, part.offer.provider)
        for table, kind in TABLES.items()
        if kind is not None
        for part in checked.parts(table)
    ]
    dataset = checked.dataset.path or checked.datasets
    rows += [("dataset", "", str(dataset)), ("runs", "", str(checked.runs))]
    click.echo(f"{checked.file} is ok")
    for line in columns(rows):
        click.echo(printable(f"  {line}"))


def _trainer(pipeline: Pipeline) -> list[str]:
    """Return why the trainer cannot work here, such as a device that this machine has not."""
    from fst_core.errors import FstError

    try:
        for part in pipeline.parts("trainer"):
            part.build()
    except FstError as error:
        return [str(error)]
    return []


def _documents(pipeline: Pipeline) -> list[str]:
    """Return what is wrong with what the pipeline begins from."""
    from fst_core.artefacts.manifest import read_manifest
    from fst_core.errors import FstError

    if pipeline.dataset.path is not None:
        try:
            read_manifest(pipeline.dataset.path, kind="dataset")
        except FstError as error:
            return [f"[dataset] path: {error}"]
        return []
    missing = [name for name in ("documents", "tokenizer") if not pipeline.parts(name)]
    if missing or pipeline.documents is None:
        return [f"[{name}]: this table is needed." for name in missing]
    try:
        reader = pipeline.documents.build()
        empty = [split for split in reader.splits() if next(reader.read(split), None) is None]
    except FstError as error:
        return [f"[documents] {error}"]
    return [f"[documents] {split}: there is no document." for split in empty]
