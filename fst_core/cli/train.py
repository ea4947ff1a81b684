"""`fst train`: dataset -> model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from fst_core.cli.options import overrides_option, pipeline_argument, tell

if TYPE_CHECKING:
    from pathlib import Path


@click.command("train")
@pipeline_argument
@overrides_option
@click.option("--fresh", is_flag=True, help="Begin a new run, even if there is one to go on with.")
@click.option(
    "--resume-anyway", is_flag=True,
    help="Go on with the newest run, if unfinished, although its dataset or settings differ.",
)  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="Show no bars; tell of training alone, in lines.")
def command(
    pipeline: Path | None,
    overrides: tuple[str, ...],
    *,
    fresh: bool,
    resume_anyway: bool,
    quiet: bool,
) -> None:
    """Train the model of PIPELINE, unless it is up to date; goes on with a run that was cut off.

    Prepares the dataset first where that is needed. Prints the model's directory.
    """
    from fst_core.pipeline.override import override
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.process import leads
    from fst_core.pipeline.stages import explain, run_stages
    from fst_core.preparation.progress import silent

    if fresh and resume_anyway:
        raise click.UsageError("--fresh and --resume-anyway exclude each other.")
    if quiet:
        os.environ["TTY_INTERACTIVE"] = "0"  # trainers, and the processes that they start, heed it
    say = silent if quiet else tell
    loaded = load_pipeline(pipeline, overrides)
    if resume_anyway and leads():
        explain(loaded, "train")  # what cannot be carried out changes no run
        override(loaded, say)
    outcome = run_stages(loaded, "train", say, fresh=fresh)
    click.echo(outcome.model)
