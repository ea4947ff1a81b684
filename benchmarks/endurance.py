"""The server under a flood, and under mixed load for minutes: what it refuses, how fast, and what it keeps.

Usage: python benchmarks/endurance.py TARGET [--minutes 10]

TARGET is what `fst serve` takes, such as runs/shakespeare/1. First three floods: 200 requests at once
on 4 places and a line of 16. Then as many minutes of 16 clients, of whom one in ten leaves in the
middle and one in ten asks for nonsense; at the end the server rests. Printed are latencies of refusals,
memory, descriptors and threads over time, and whether the counters add up.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

FLOOD = 200
CLIENTS = 16
WATCH_SECONDS = 15
FST = Path(sys.executable).parent / "fst"
PROMPTS = ("ROMEO", "To be, or not to be", "Once upon a time", "Enter the King")


@click.command()
@click.argument("target")
@click.option("--minutes", default=10.0, show_default=True)
def main(target: str, minutes: float) -> None:
    """Measure and print."""
    with serving(target, "serve.0.max_running=4", "serve.0.max_waiting=16") as (url, _):
        for _ in range(3):
            asyncio.run(flood(url))
    with serving(target) as (url, process):
        asyncio.run(endure(url, process, minutes * 60))


@contextmanager
def serving(target: str, *settings: str) -> Iterator[tuple[str, psutil.Process]]:
    """Serve on a free port, and end the server."""
    arguments = [part for s in (*settings, "serve.0.log_requests=false") for part in ("-s", s)]
    process = subprocess.Popen(
        [FST, "serve", target, "--port", "0", *arguments], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        while (found := re.search(r"http://\S+:\d+", process.stderr.readline())) is None:
            if process.poll() is not None:
                raise click.ClickException("the server did not come up")
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        click.echo(f"the server ended with status {process.wait()}")


async def flood(url: str) -> None:
    """Send many requests at the same time, as bytes: a client's own work would count as the server's."""
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"prompt": PROMPTS[0], "max_tokens": 64}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    request = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(FLOOD)]

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, float]:
        begun = time.perf_counter()
        writer.write(request)
        status = int((await reader.readline()).split()[1])
        seconds = time.perf_counter() - begun
        writer.close()
        return status, seconds

    answers = await asyncio.gather(*(ask(*each) for each in connections))
    refused = sorted(seconds for status, seconds in answers if status == 503)
    statuses = dict(Counter(status for status, _ in answers))
    late = refused[int(len(refused) * 0.99)] if refused else 0.0
    click.echo(f"flood: {statuses}, 99 of 100 refused within {late:.3f} s")


async def endure(url: str, process: psutil.Process, seconds: float) -> None:
    """Ask, leave and talk nonsense for so long, and see what is left of it."""
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds

    async def visit(rng: random.Random) -> None:
        while time.monotonic() < end:
            async with httpx.AsyncClient(base_url=url, timeout=300) as client:
                outcomes[await ask(client, rng)] += 1

    async def watch() -> None:
        while time.monotonic() < end:
            show(process, outcomes)
            await asyncio.sleep(WATCH_SECONDS)

    await asyncio.gather(watch(), *(visit(random.Random(n)) for n in range(CLIENTS)))
    await asyncio.sleep(3)
    show(process, outcomes)
    metrics = httpx.get(f"{url}/metrics").text
    for line in metrics.splitlines():
        if re.match(r"(fst:requests|vllm:num_requests|vllm:request_success)", line):
            click.echo(line)


async def ask(client: httpx.AsyncClient, rng: random.Random) -> str:
    """Make one request, and return what came of it."""
    body = {
        "prompt": f"{rng.choice(PROMPTS)} {rng.random()}",
        "max_tokens": rng.randint(1, 60),
        "seed": rng.randrange(10_000),
        "stream": rng.random() < 0.5,
    }
    chance = rng.random()
    if chance < 0.1:
        body[rng.choice(["n", "nope", "temperature"])] = -5
    if 0.1 <= chance < 0.2:
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.random() * 0.3):
                await client.post("/v1/completions", json=body)
        return "left"
    answer = await client.post("/v1/completions", json=body)
    return str(answer.status_code)


def show(process: psutil.Process, outcomes: Counter[str]) -> None:
    """Print what the server holds."""
    memory = process.memory_info().rss / 1e6
    click.echo(
        f"{memory:.0f} MB, {process.num_fds()} descriptors, {process.num_threads()} threads; "
        f"{dict(sorted(outcomes.items()))}"
    )


if __name__ == "__main__":
    main()
