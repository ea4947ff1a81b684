"""`fst generate`: a model continues a prompt."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from fst_core.cli.options import overrides_option, path_argument

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core.generation import Request
    from fst_core.interfaces import Engine


@click.command("generate")
@path_argument("target")
@click.option(
    "--prompt", "-p", default="", help="The text to continue; `-` reads it from the input."
)
@click.option("--max-new-tokens", "-n", type=click.IntRange(1), default=256, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--stop", multiple=True, metavar="TEXT", help="A text that ends the generation.")
@click.option(
    "--parameter", "-P", "parameters", multiple=True, metavar="KEY=VALUE",
    help="A parameter of a sampler, such as temperature=0.8.",
)  # fmt: skip
@overrides_option
def command(
    *,
    target: Path,
    prompt: str,
    max_new_tokens: int,
    seed: int,
    stop: tuple[str, ...],
    parameters: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Continue a prompt with TARGET: a model's or a run's directory, a pipeline file, or a GGUF file.

    The text is written as it comes, and nothing else is.
    """
    from fst_core.generation import Request
    from fst_core.pipeline.target import open_engine

    text = sys.stdin.read() if prompt == "-" else prompt
    request = Request(
        prompt=text,
        max_new_tokens=max_new_tokens,
        seed=seed,
        stop=stop,
        parameters=_table(parameters),
    )
    asyncio.run(_write(open_engine(target, overrides), request))


def _table(parameters: tuple[str, ...]) -> dict[str, Any]:
    from fst_core.pipeline.tables import override

    table: dict[str, Any] = {}
    override(table, parameters, "-P")
    return table


async def _write(engine: Engine, request: Request) -> None:
    assert isinstance(request.prompt, str)
    prompt = request.prompt  # written once the engine has taken the request
    async for chunk in engine.stream(request):
        click.echo(prompt + chunk.text, nl=False)
        sys.stdout.flush()
        prompt = ""
    click.echo()
    await engine.close()
