"""The server beside others: tokens a second, first token and time to ready, over HTTP on loopback.

Usage: python benchmarks/serve.py [--repeat 3] [--model DIRECTORY] [--vllm PYTHON]

GPT-2 124M with random weights, unless a model is named; streaming completions of 64 tokens, as many
at a time as there are streams, by one client for all servers. All servers are up at the same time
and take turns; the tables have medians. vLLM takes part where the Python of its own environment is
named: see vllm_peer.py. At the end: what the server itself costs, as processor time for each token
beside that of the bare engine in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
import httpx
import psutil
from engine import fst as bare_engine
from engine import random_gpt2, together

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS = (1, 16)
NEW = 64
PROMPTS = (
    "Once upon a time there was a king who lived",
    "The supreme law of morality",
    "To be or not to be, that is",
    "In the beginning of the year the people of the town decided that they would",
)
READY_SECONDS = 300
BIN = Path(sys.executable).parent


@dataclass
class Server:
    """A server that is up."""

    url: str
    process: psutil.Process
    ready: float
    """Seconds from its start until it was."""
    model: str
    speeds: dict[int, list[float]] = field(default_factory=dict)
    firsts: dict[int, list[float]] = field(default_factory=dict)

    def cpu_seconds(self) -> float:
        """Return the processor time of the server and of what it began."""
        processes = [self.process, *self.process.children(recursive=True)]
        return sum(sum(each.cpu_times()[:2]) for each in processes)


@click.command()
@click.option("--repeat", default=3, show_default=True)
@click.option("--model", type=click.Path(path_type=Path), default=None)
@click.option("--vllm", "python", help="The Python of an environment with vLLM.")
def main(repeat: int, model: Path | None, python: str | None) -> None:
    """Measure and print the tables."""
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        directory = model or random_gpt2(Path(temporary))
        commands: dict[str, list[str]] = {
            "transformers serve, continuous batching, fp32": transformers_serve(directory),
            "FST, fp32": fst_serve(directory, "fp32"),
            "FST, bf16": fst_serve(directory, "bf16"),
        }
        if python:
            commands["vLLM, bf16"] = vllm_serve(python, directory)
        log = stack.enter_context((Path(temporary) / "log").open("wb"))
        servers = {
            name: stack.enter_context(started(command, directory, log))
            for name, command in commands.items()
        }
        for turn in range(repeat + 1):
            for server in servers.values():
                for streams in STREAMS:
                    speed, first = asyncio.run(load(server, streams, seed=turn))
                    if turn:  # the first warms up
                        server.speeds.setdefault(streams, []).append(speed)
                        server.firsts.setdefault(streams, []).append(first)
        report(servers)
        overhead(servers["FST, bf16"], directory, repeat)


def fst_serve(directory: Path, precision: str) -> list[str]:
    """Return the command of FST's server."""
    settings = ["-s", f"engine.precision={precision}", "-s", "serve.0.log_requests=false"]
    return [str(BIN / "fst"), "serve", str(directory), *settings, "--port"]


def transformers_serve(directory: Path) -> list[str]:
    """Return the command of the server of `transformers`."""
    batching = ["--continuous-batching", "--cb-num-blocks", "64", "--cb-max-batch-tokens", "512"]
    dtype = ["--dtype", "float32", "--attn-implementation", "sdpa", "--device", "cpu"]
    return [str(BIN / "transformers"), "serve", str(directory), *batching, *dtype, "--port"]


def vllm_serve(python: str, directory: Path) -> list[str]:
    """Return the command of vLLM's server."""
    script = Path(__file__).with_name("vllm_server.py")
    return [python, str(script), "serve", str(directory), "--dtype", "bfloat16", "--port"]


@contextmanager
def started(command: list[str], directory: Path, log: Any) -> Iterator[Server]:
    """Start a server on a free port, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    begun = time.perf_counter()
    process = subprocess.Popen([*command, str(port)], stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        while True:
            try:
                known = httpx.get(f"{url}/models", timeout=5).json()["data"]
                break
            except (httpx.HTTPError, ValueError, KeyError):
                late = time.perf_counter() - begun > READY_SECONDS
                if late or process.poll() is not None:
                    raise click.ClickException(
                        f"{command[0]} did not come up: {Path(log.name).read_text()[-2000:]}"
                    ) from None
                time.sleep(0.05)
        ready = time.perf_counter() - begun
        name = known[0]["id"] if known else str(directory)
        yield Server(url, psutil.Process(process.pid), ready, name)
    finally:
        process.terminate()
        process.wait()


async def load(server: Server, streams: int, seed: int) -> tuple[float, float]:
    """Return tokens a second, and the median time to a first token."""
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        begun = time.perf_counter()
        answers = await asyncio.gather(
            *(complete(client, server, seed * 100 + n) for n in range(streams))
        )
        seconds = time.perf_counter() - begun
    tokens = sum(tokens for tokens, _ in answers)
    return tokens / seconds, median(first for _, first in answers)


async def complete(client: httpx.AsyncClient, server: Server, seed: int) -> tuple[int, float]:
    """Stream one completion; return how many tokens it had, and when the first came."""
    body = {
        "model": server.model,
        "prompt": PROMPTS[seed % len(PROMPTS)],
        "max_tokens": NEW,
        "temperature": 1.0,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun = time.perf_counter()
    first, chunks, usage = 0.0, 0, None
    async with client.stream("POST", f"{server.url}/completions", json=body) as answer:
        if answer.status_code != httpx.codes.OK:
            raise click.ClickException(f"{server.model}: {(await answer.aread()).decode()}")
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                usage = event.get("usage") or usage
                if event.get("choices"):
                    first = first or time.perf_counter() - begun
                    chunks += 1
    return (usage["completion_tokens"] if usage else chunks), first


def report(servers: dict[str, Server]) -> None:
    """Print a row for each server."""
    cells = [f"{n} streams, tokens/s | first token, s" for n in STREAMS]
    click.echo("| server | ready, s | " + " | ".join(cells) + " |")
    click.echo("|---|---|" + "---|" * 2 * len(STREAMS))
    for name, server in servers.items():
        cells = [
            f"{median(server.speeds[n]):.0f} | {median(server.firsts[n]):.3f}" for n in STREAMS
        ]
        click.echo(f"| {name} | {server.ready:.1f} | " + " | ".join(cells) + " |")


def overhead(server: Server, directory: Path, repeat: int) -> None:
    """Print the processor time of a token over HTTP, and from the bare engine in this process."""
    engine = bare_engine(directory, "bf16")
    known = [asyncio.run(engine.encode(prompt)) for prompt in PROMPTS]
    prompts = [known[n % len(known)] for n in range(16)]
    generate = together(engine)
    served, bare = [], []
    for turn in range(repeat + 1):
        before = server.cpu_seconds()
        asyncio.run(load(server, 16, seed=turn))
        served.append((server.cpu_seconds() - before) / (16 * NEW))
        before = time.process_time()
        tokens, _ = generate(prompts)
        bare.append((time.process_time() - before) / tokens)
    asyncio.run(engine.close())
    there, here = median(served[1:]) * 1e3, median(bare[1:]) * 1e3
    click.echo(
        f"processor time of a token at 16 streams: {there:.2f} ms over HTTP, {here:.2f} ms in the "
        f"bare engine: {there / here:.3f}"
    )


if __name__ == "__main__":
    main()
