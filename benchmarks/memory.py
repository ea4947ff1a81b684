"""What the engine holds while it serves: 2,000 requests of mixed lengths, a third of whom leave in the middle.

Usage: python benchmarks/memory.py [TARGET] [--requests 2000]

TARGET is what `fst generate` takes, such as runs/shakespeare/1; without it, a tiny GPT-2 with random
weights is made. 24 requests run at a time. After each tenth of them the engine rests, and a row says how
much memory the process has, how many tensors live, and how large those are that are not packed. The
beginnings of texts that are kept are limited to 20 MB, so that their store is full early; whether the
second half of the requests made the process grow is said at the end.
"""

from __future__ import annotations

import asyncio
import gc
import random
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import psutil
import torch  # noqa: TID253  # a script, whose whole work is with these
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: TID253  # the same

from fst_core import Request
from fst_core.pipeline.target import open_engine
from fst_core.plugins import registry

if TYPE_CHECKING:
    from fst_core import Engine

AT_ONCE = 24
ROWS = 10
LONGEST = 96
"""Ids of a prompt, and as many new ones."""
KEPT_GB = 0.02
NOISE = 0.01
"""A process that grows by less than this share is taken for one that does not grow."""


class Held(NamedTuple):
    """What a process holds."""

    rss: int
    tensors: int
    tensor_bytes: int


@click.command()
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--requests", default=2000, show_default=True, type=click.IntRange(2 * ROWS))
def main(target: Path | None, requests: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        engine = open_engine(target or tiny(Path(temporary)), [f"engine.prefix_gb={KEPT_GB}"])
    asyncio.run(measure(engine, requests // ROWS))


def tiny(directory: Path) -> Path:
    """Save a GPT-2 with random weights, as `transformers` does, and return where."""
    tokenizer = registry().find("tokenizer", "gpt2").build(None)
    tokenizer.save(directory)
    torch.manual_seed(228)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size, n_positions=4 * LONGEST, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.end_id,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


async def measure(engine: Engine, each: int) -> None:
    """Ask for `each` texts, again and again, and print what is held after them."""
    rng = random.Random(228)
    vocabulary = 256  # ids that every tokenizer has
    click.echo("requests   memory, MB   tensors   their MB")
    rows: list[Held] = []
    for number in range(1, ROWS + 1):
        places = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(
            *(ask(engine, rng, places, vocabulary, leaves=n % 3 == 0) for n in range(each))
        )
        while engine.describe()["running"] or engine.describe()["waiting"]:
            await asyncio.sleep(0.01)
        rows.append(found := held())
        click.echo(
            f"{number * each:8}   {found.rss / 1e6:10.1f}   {found.tensors:7}   "
            f"{found.tensor_bytes / 1e6:8.1f}"
        )
    await engine.close()
    click.echo(verdict(rows))


async def ask(
    engine: Engine, rng: random.Random, places: asyncio.Semaphore, vocabulary: int, *, leaves: bool
) -> None:
    """Ask for a text of some length; who leaves does so in the middle of it."""
    prompt = tuple(rng.randrange(vocabulary) for _ in range(rng.randint(1, LONGEST)))
    new = rng.randint(2, LONGEST)
    request = Request(prompt, max_new_tokens=new, seed=rng.randrange(10_000))
    async with places, aclosing(engine.stream(request)) as chunks:
        count = 0
        async for _ in chunks:
            count += 1
            if leaves and count > new // 2:
                break


def held() -> Held:
    """Return what this process holds now."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    plain = [each for each in tensors if not each.is_mkldnn]  # packed weights tell no size
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in plain}
    return Held(psutil.Process().memory_info().rss, len(tensors), sum(storages.values()))


def verdict(rows: list[Held]) -> str:
    """Say whether the second half of the requests made the process grow."""
    middle, last = rows[len(rows) // 2 - 1], rows[-1]
    memory, tensors = last.rss - middle.rss, last.tensor_bytes - middle.tensor_bytes
    grew = memory > NOISE * middle.rss or tensors > NOISE * middle.tensor_bytes
    return (
        f"the second half {'GREW' if grew else 'did not grow'}: {memory / 1e6:+.1f} MB of memory, "
        f"{tensors / 1e6:+.1f} MB of tensors"
    )


if __name__ == "__main__":
    main()
