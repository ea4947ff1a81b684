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
@click.option(
    "--shard", metavar="I/N",
    help="Prepare part I of N alone, here or on another machine; `fst dataset join` joins them.",
)  # fmt: skip
def command(
    pipeline: Path | None, overrides: tuple[str, ...], *, quiet: bool, shard: str | None
) -> None:
    """Prepare the dataset of PIPELINE, unless it is up to date.

    Prints the dataset's directory, or the shard's.
    """
    from fst_core.errors import UserError
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.prepare import plan_prepare, prepare_shard
    from fst_core.pipeline.stages import run_stages
    from fst_core.preparation.progress import silent
    from fst_core.preparation.shards import Shard

    loaded, told = load_pipeline(pipeline, overrides), silent if quiet else tell
    if shard is None:
        click.echo(run_stages(loaded, "prepare", told).dataset)
        return
    try:
        part = Shard.parse(shard)
    except ValueError as error:
        raise UserError(f"--shard {error}") from None
    if loaded.dataset.path is not None:
        raise UserError("--shard: [dataset] path names a dataset that is made already")
    loaded.require("documents", "tokenizer")
    click.echo(prepare_shard(loaded, plan_prepare(loaded), part, told))
