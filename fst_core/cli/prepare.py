"""`fst prepare`: documents -> dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fst_core.cli.options import overrides_option, pipeline_argument, tell

if TYPE_CHECKING:
    from pathlib import Path


@click.command("prepare")
@pipeline_argument
@overrides_option
@click.option("--quiet", "-q", is_flag=True, help="Tell nothing on the way, not even a bar.")
def command(pipeline: Path | None, overrides: tuple[str, ...], *, quiet: bool) -> None:
    """Prepare the dataset of PIPELINE, unless it is up to date.

    Prints the dataset's directory.
    """
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.progress import silent
    from fst_core.pipeline.stages import run_stages

    outcome = run_stages(load_pipeline(pipeline, overrides), "prepare", silent if quiet else tell)
    click.echo(outcome.dataset)
