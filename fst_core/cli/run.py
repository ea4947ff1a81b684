"""`fst run`: everything that is not up to date, from documents to a model that writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import click

from fst_core.cli.options import overrides_option, pipeline_argument, tell
from fst_core.cli.serve import serve

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core.pipeline.stages import Stage
    from fst_core.pipeline.target import Target

_TOKENS: Final = 120
"""How much the new model writes at the end."""


@click.command("run")
@pipeline_argument
@overrides_option
@click.option(
    "--until",
    type=click.Choice(["prepare", "train", "evaluate"]),
    help="The last stage to do; without it, a pipeline with [[serve]] serves at the end.",
)
@click.option("--explain", "only_explain", is_flag=True, help="Say what would be done and why.")
@click.option("--fresh", is_flag=True, help="Begin a new run, even if there is one to go on with.")
def command(
    pipeline: Path | None,
    overrides: tuple[str, ...],
    until: Stage | None,
    *,
    only_explain: bool,
    fresh: bool,
) -> None:
    """Do what is not up to date in PIPELINE: prepare, train, evaluate; then let the model write.

    A pipeline with [[serve]] then serves the model until a signal.
    """
    run(pipeline, overrides, until, only_explain=only_explain, fresh=fresh)


def run(
    path: Path | None,
    overrides: tuple[str, ...] = (),
    until: Stage | None = None,
    *,
    only_explain: bool = False,
    fresh: bool = False,
) -> None:
    """Carry out a pipeline, and show what its model writes and what can be done with it."""
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.stages import explain, run_stages
    from fst_core.pipeline.target import Target

    pipeline = load_pipeline(path, overrides)
    last: Stage = until or ("prepare" if pipeline.model is None else "evaluate")
    if only_explain:
        for plan in explain(pipeline, last, fresh=fresh):
            click.echo(plan)
        return
    if until is None:
        pipeline.require(*(["serve"] if pipeline.frontends else []))  # known before any work
    outcome = run_stages(pipeline, last, tell, fresh=fresh)
    if outcome.model is None:
        click.echo(outcome.dataset)
        return
    target = Target(outcome.model, pipeline)
    asyncio.run(_write(target))
    if pipeline.frontends and until is None:
        serve(target)
    else:
        _advise(target)


async def _write(target: Target) -> None:
    from fst_core.generation import Request

    engine = target.engine()
    generation = await engine.generate(Request(max_new_tokens=_TOKENS))
    await engine.close()
    click.echo(f"\nIt writes:\n\n{generation.text.strip()}\n")


def _advise(target: Target) -> None:
    from fst_core.plugins import registry

    click.echo("Next:")
    click.echo(f'  fst generate {target.directory} --prompt "..."')
    click.echo(f"  tensorboard --logdir {target.directory.parent}")
    if registry().of_kind("frontend"):
        click.echo(f"  fst serve {target.directory}")
