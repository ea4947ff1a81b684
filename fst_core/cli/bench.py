"""`fst bench`: how fast a model generates, for one stream and for many."""

from __future__ import annotations

import asyncio
import itertools
import json
import platform
import random
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from fst_core.cli.options import overrides_option, path_argument

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core.generation import Request
    from fst_core.interfaces import Engine

_PACKAGES = ("full-stack-transformer", "torch", "transformers")


@click.command("bench")
@path_argument("target")
@click.option(
    "--streams", type=click.IntRange(1), multiple=True, default=(1, 8, 16, 32), show_default=True,
    help="How many requests run at once; may be given again and again.",
)  # fmt: skip
@click.option("--new-tokens", type=click.IntRange(2), default=64, show_default=True)
@click.option("--prompt-tokens", type=click.IntRange(1), default=32, show_default=True,
              help="The prompts' median length; they have from half to one and a half of it.")  # fmt: skip
@overrides_option
def command(
    *,
    target: Path,
    streams: tuple[int, ...],
    new_tokens: int,
    prompt_tokens: int,
    overrides: tuple[str, ...],
) -> None:
    """Measure how fast TARGET generates, and print it as JSON.

    TARGET is a model's or a run's directory, a pipeline file, or a GGUF file. All requests of a row
    begin at once, with prompts of random ids and different lengths.
    """
    from fst_core.pipeline.target import open_engine

    begun = time.perf_counter()
    engine = open_engine(target, overrides)
    ready = time.perf_counter() - begun
    rows = asyncio.run(_measured(engine, streams, new_tokens, prompt_tokens))
    said = engine.describe()
    report = {
        "model": str(target),
        "engine": said.get("name"),
        "dtype": said.get("dtype"),
        "device": said.get("device"),
        "parameters": said.get("parameters"),
        "versions": _versions(),
        "new_tokens": new_tokens,
        "prompt_tokens": prompt_tokens,
        "ready_s": round(ready, 3),
        "rows": rows,
    }
    click.echo(json.dumps(report, indent=1))


async def _measured(
    engine: Engine, streams: tuple[int, ...], new_tokens: int, prompt_tokens: int
) -> list[dict[str, Any]]:
    known = await _ids(engine)
    rng = random.Random(228)  # noqa: S311  # the same prompts each time, and no secret
    knows_top_k = "top_k" in engine.describe().get("sampling", {})

    def request() -> Request:
        from fst_core.generation import Request

        length = rng.randint(max(1, prompt_tokens // 2), prompt_tokens * 3 // 2)
        return Request(
            prompt=tuple(rng.choices(known, k=length)),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            seed=rng.randrange(2**32),
            parameters={"top_k": 50} if knows_top_k else {},
        )

    try:
        await _run(engine, [request()])  # what is done once, as memory is taken
        return [await _run(engine, [request() for _ in range(count)]) for count in streams]
    finally:
        await engine.close()


async def _ids(engine: Engine) -> list[int]:
    """Return ids of the vocabulary that are text."""
    letters = "etaoin shrdlu ETAOIN 0123456789 .,;:!? the and of to in that was his he it with is"
    return sorted(set(await engine.encode(letters)))


async def _run(engine: Engine, requests: list[Request]) -> dict[str, Any]:
    """Generate all at once, and return the figures."""
    begun = time.perf_counter()
    arrivals = await asyncio.gather(*(_arrivals(engine, request) for request in requests))
    seconds = time.perf_counter() - begun
    between = [later - sooner for times in arrivals for sooner, later in itertools.pairwise(times)]
    return {
        "streams": len(requests),
        "tokens_per_second": round(sum(map(len, arrivals)) / seconds, 2),
        "first_token_s": round(median(times[0] - begun for times in arrivals), 4),
        "per_token_s": round(median(between), 4) if between else None,
    }


async def _arrivals(engine: Engine, request: Request) -> list[float]:
    """Return when each token came."""
    times: list[float] = []
    async for chunk in engine.stream(request):
        times.extend([time.perf_counter()] * max(1, len(chunk.ids)))
    return times


def _versions() -> dict[str, str | None]:
    from fst_core.plugins import version_of

    return {"python": platform.python_version(), **{name: version_of(name) for name in _PACKAGES}}
