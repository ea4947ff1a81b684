"""`fst run`: everything that is not up to date, from documents to a model that writes."""

from __future__ import annotations

import asyncio
import os
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
_GREETING: Final = "Hello"
"""What a model that learned conversations answers at the end."""


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
@click.option("--quiet", "-q", is_flag=True, help="Show no bars; tell of training alone, in lines.")
def command(
    pipeline: Path | None,
    overrides: tuple[str, ...],
    until: Stage | None,
    *,
    only_explain: bool,
    fresh: bool,
    quiet: bool,
) -> None:
    """Do what is not up to date in PIPELINE: prepare, train, evaluate; then let the model write.

    A pipeline with [[serve]] then serves the model until a signal.
    """
    run(pipeline, overrides, until, only_explain=only_explain, fresh=fresh, quiet=quiet)


def run(
    path: Path | None,
    overrides: tuple[str, ...] = (),
    until: Stage | None = None,
    *,
    only_explain: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> None:
    """Carry out a pipeline, and show what its model writes and what can be done with it."""
    from fst_core.pipeline.pipeline import load_pipeline
    from fst_core.pipeline.stages import explain, run_stages
    from fst_core.pipeline.target import Target
    from fst_core.preparation.progress import silent

    pipeline = load_pipeline(path, overrides)
    last: Stage = until or ("prepare" if pipeline.model is None else "evaluate")
    if only_explain:
        for plan in explain(pipeline, last, fresh=fresh):
            click.echo(plan)
        return
    if until is None:
        pipeline.require(*(["serve"] if pipeline.frontends else []))  # known before any work
    if quiet:
        os.environ["TTY_INTERACTIVE"] = "0"  # trainers, and the processes that they start, heed it
    outcome = run_stages(pipeline, last, silent if quiet else tell, fresh=fresh)
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
    from fst_core.cli import printable
    from fst_core.documents import Message
    from fst_core.generation import Request

    engine = target.engine()
    if _converses(target):
        said, prompt = f"It answers {_GREETING!r}", (Message("user", _GREETING),)
        request = Request(prompt=prompt, max_new_tokens=_TOKENS)
    else:
        said, request = "It writes", Request(max_new_tokens=_TOKENS)
    generation = await engine.generate(request)
    await engine.close()
    click.echo(f"\n{said}:\n\n{printable(generation.text.strip())}\n")


def _converses(target: Target) -> bool:
    """Return whether a model learned conversations."""
    from fst_core.artefacts.manifest import read_manifest

    return bool(read_manifest(target.directory, kind="model").get("chat") == "trained")


def _advise(target: Target) -> None:
    from fst_core.plugins import registry
    from fst_core.report.card import REPORT

    run = target.directory.parent
    click.echo("Next:")
    if (run / REPORT).is_file():
        click.echo(f"  {run / REPORT} says whether it learned, and what to change")
    if _converses(target):
        click.echo(f"  fst chat {target.directory}")
    else:
        click.echo(f'  fst generate {target.directory} --prompt "..."')
    click.echo(f"  tensorboard --logdir {run}")
    if registry().of_kind("frontend"):
        click.echo(f"  fst serve {target.directory}")
