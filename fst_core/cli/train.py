"""`fst train`: dataset -> model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fst_core.cli.options import overrides_option, pipeline_argument, tell

if TYPE_CHECKING:
    from pathlib import Path


@click.command("train")
@pipeline_argument
@overrides_option
@click.option("--fresh", is_flag=True, help="Begin a new run, even if there is one to go on with.")
def command(pipeline: Path | None, overrides: tuple[str, ...], *, fresh: bool) -> None:
    """Train the model of PIPELINE, unless it is up to date; goes on with a run that was cut off.

    Prepares the dataset first where that is needed. Prints the model's directory.
    """
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.stages import run_stages

    outcome = run_stages(load_pipeline(pipeline, overrides), "train", tell, fresh=fresh)
    click.echo(outcome.model)
