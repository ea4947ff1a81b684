"""`fst chat`: a conversation with a model, in the terminal."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import click

from fst_core.cli.options import overrides_option, path_argument, tell

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core.documents import Message
    from fst_core.interfaces import Engine

_COMMANDS = "/reset begins anew, /exit or Ctrl-D ends"
_LEAST = 32
"""Ids that an answer should have room for; older turns are left out until it has."""


@click.command("chat")
@path_argument("target")
@click.option("--system", default="", help="What the model is told before the conversation.")
@click.option("--max-new-tokens", "-n", type=click.IntRange(1), default=512, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--parameter", "-P", "parameters", multiple=True, metavar="KEY=VALUE",
    help="A parameter of a sampler, such as temperature=0.8.",
)  # fmt: skip
@overrides_option
def command(
    *,
    target: Path,
    system: str,
    max_new_tokens: int,
    seed: int,
    parameters: tuple[str, ...],
    overrides: tuple[str, ...],
) -> None:
    """Talk with TARGET: a model's or a run's directory, a pipeline file, or a GGUF file.

    /reset begins anew, /exit ends. Ctrl-C stops an answer, and ends between answers.
    """
    from fst_core.pipeline.tables import override
    from fst_core.pipeline.target import open_engine

    table: dict[str, Any] = {}
    override(table, parameters, "-P")
    options = {"max_new_tokens": max_new_tokens, "parameters": table}
    engine = open_engine(target, overrides)
    if engine.describe().get("chat") == "default":
        tell("This model learned no conversations: it goes on with a text that looks like one.")
    tell(f"{engine.describe().get('model') or target}: {_COMMANDS}.")
    with asyncio.Runner() as runner:
        try:
            _talk(runner, engine, system, seed, options)
        except EOFError:
            if sys.stdin.isatty():
                click.echo()  # the cursor stands behind the prompt
        finally:
            runner.run(engine.close())


def _talk(
    runner: asyncio.Runner, engine: Engine, system: str, seed: int, options: dict[str, Any]
) -> None:
    """Read what is said, and answer it, until there is no more."""
    from fst_core.documents import Message
    from fst_core.errors import FstError

    with suppress(ImportError):  # Windows has its own line editing
        import readline  # noqa: F401  # `input` uses it

    beginning = [Message("system", system)] if system else []
    messages = list(beginning)
    while (said := input("> " if sys.stdin.isatty() else "").strip()) != "/exit":
        if not said:
            continue
        if re.fullmatch(r"/\w*", said):  # a path, or a text with more words, is the model's
            if said == "/reset":
                messages = list(beginning)
            else:
                tell(f"There is no {said}: {_COMMANDS}.")
            continue
        kept = [*messages, Message("user", said)]
        answer: list[str] = []
        try:
            kept = runner.run(_shortened(engine, kept, len(beginning)))
            runner.run(_answer(engine, kept, seed, options, answer))
        except KeyboardInterrupt:
            pass  # what was written counts as the answer
        except FstError as error:
            tell(str(error))
            continue
        finally:
            click.echo()
        messages = [*kept, Message("assistant", "".join(answer))]
        seed += 1


async def _shortened(engine: Engine, messages: list[Message], first: int) -> list[Message]:
    """Leave out the oldest turns, from `first` on, until the answer has room."""
    from fst_core.errors import UnsupportedParameter

    length = engine.describe().get("context_length")
    if length is None:
        return messages
    left_out = False
    with suppress(UnsupportedParameter):  # an engine that cannot count refuses what does not fit
        while (
            len(messages) > first + 2
            and len(await engine.encode(tuple(messages))) + _LEAST > length
        ):
            messages = [*messages[:first], *messages[first + 2 :]]
            left_out = True
    if left_out:
        tell(
            "(The oldest turns are left out: the conversation is longer than the model's context.)"
        )
    return messages


async def _answer(
    engine: Engine, messages: list[Message], seed: int, options: dict[str, Any], answer: list[str]
) -> None:
    """Write an answer as it comes, into the list too."""
    from fst_core.generation import Request

    request = Request(prompt=tuple(messages), seed=seed, **options)
    async with aclosing(engine.stream(request)) as chunks:
        async for chunk in chunks:
            answer.append(chunk.text)
            click.echo(chunk.text, nl=False)
            sys.stdout.flush()
