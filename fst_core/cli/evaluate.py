"""`fst evaluate`: model -> figures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fst_core.cli.options import overrides_option, path_argument, tell

if TYPE_CHECKING:
    from pathlib import Path


@click.command("evaluate")
@path_argument("target")
@click.option("--dataset", metavar="DIR", help="The dataset to measure a model's directory on.")
@overrides_option
def command(target: Path, dataset: str | None, overrides: tuple[str, ...]) -> None:
    """Measure TARGET: a pipeline file, or a model's directory with --dataset.

    Prints the figures as JSON. Of a pipeline, what is needed first is made first.
    """
    click.echo(json.dumps(_figures(target, dataset, overrides), indent=1))


def _figures(
    target: Path, dataset: str | None, overrides: tuple[str, ...]
) -> dict[str, dict[str, float | None]]:
    from pathlib import Path

    from fst_core.dataset import Dataset
    from fst_core.errors import UserError
    from fst_core.pipeline.evaluate import figures_of
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.stages import run_stages
    from fst_core.pipeline.target import find_target

    if dataset is None:
        if not target.is_file():
            raise UserError(
                f"{target}: to measure a model's directory, name a dataset: --dataset DIR"
            )
        return run_stages(load_pipeline(target, overrides), "evaluate", tell).figures or {}
    found = find_target(target, overrides)
    evaluators = (
        found.pipeline.evaluators
        or load_pipeline(
            None,
            ["evaluate.0.use=perplexity", *(o for o in overrides if o.startswith("evaluate."))],
        ).evaluators
    )
    return figures_of(evaluators, found.directory, Dataset.open(Path(dataset)), tell)
