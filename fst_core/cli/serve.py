"""`fst serve`: a model behind its frontends, until a signal."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import click

from fst_core.cli.options import overrides_option, path_argument, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fst_core.interfaces import Engine, Frontend
    from fst_core.pipeline.target import Target

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULT = "fastapi"
_CLOSE_SECONDS = 10.0
"""How long an engine may take to end its thread: a step of a large model is long."""


@click.command("serve")
@path_argument("target")
@click.option("--host", help="The address to listen on, as -s serve.0.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, as -s serve.0.port.")
@overrides_option
def command(target: Path, host: str | None, port: int | None, overrides: tuple[str, ...]) -> None:
    """Serve TARGET, a model's or a run's directory or a pipeline file, by its frontends.

    Without any, it is served over HTTP by `fastapi`. The first SIGTERM or Ctrl-C lets frontends
    finish what runs; a second one ends at once.
    """
    from fst_core.pipeline.target import find_target

    given = [f"serve.0.host={host}"] * (host is not None) + [f"serve.0.port={port}"] * (
        port is not None
    )
    serve(find_target(target, (*_default_frontend(target, overrides), *overrides, *given)))


def _default_frontend(target: Path, overrides: tuple[str, ...]) -> list[str]:
    """Return the settings of the frontend that serves a model for which none is chosen."""
    from fst_core.pipeline.tables import read_tables

    chosen = [text.partition("=")[0].strip() for text in overrides]
    if "serve.0.use" in chosen or "serve" in chosen:
        return []
    if target.is_file() and target.suffix == ".toml" and "serve" in read_tables(target):
        return []
    return [f"serve.0.use={_DEFAULT}"]


def serve(target: Target) -> None:
    """Serve a model by all frontends of its pipeline, which share one engine.

    Raises:
        UserError: the pipeline has no frontend, or something that one needs is not installed.
        FstError: a frontend failed.
    """
    from fst_core.errors import UserError
    from fst_core.plugins import registry

    if not target.pipeline.frontends:
        known = ", ".join(registry().names("frontend")) or "none"
        raise UserError(
            f"{target.directory}: by which frontend? Choose one: -s serve.0.use=NAME. Installed: {known}"
        )
    target.pipeline.require("serve")
    frontends: list[Frontend] = [part.build() for part in target.pipeline.frontends]
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        told_twice = asyncio.run(_serve(target, frontends))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if told_twice:
        raise SystemExit(128 + signal.SIGTERM)


async def _serve(target: Target, frontends: list[Frontend]) -> bool:
    """Serve until told to stop; return whether it was told twice."""
    stopping = asyncio.Event()
    engine = target.engine()
    tell(
        f"serve: {target.directory} by {', '.join(p.offer.name for p in target.pipeline.frontends)}"
    )
    failed: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(f.serve(engine, stopping)) for f in frontends]

            def stop() -> None:
                if stopping.is_set():
                    for task in tasks:
                        task.cancel()
                stopping.set()

            _on_signals(stop)
            group.create_task(_stop_all_when_one_ends(tasks, stopping))
    except* Exception as errors:  # noqa: BLE001  # of a frontend: the first is told
        failed = _first(errors)
    await _close(engine, failed)
    if failed is not None:
        raise failed from None
    return any(task.cancelled() for task in tasks)


def _first(errors: BaseExceptionGroup[Any]) -> Exception:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _close(engine: Engine, failed: Exception | None) -> None:
    """Close an engine; if it hangs, end the process, whose thread nothing else can end."""
    alive = engine.describe().get("alive", True)
    try:
        async with asyncio.timeout(_CLOSE_SECONDS if alive else 1.0):
            await engine.close()
    except TimeoutError:
        tell(f"fst: {failed or 'the engine hangs'}")
        os._exit(1)


async def _stop_all_when_one_ends(tasks: list[asyncio.Task[None]], stopping: asyncio.Event) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stopping.set()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        # Not the loop's own handlers, which Windows does not have.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
