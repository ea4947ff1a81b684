"""`fst serve`: a model behind its frontends, until a signal."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import click

from fst_core.cli.options import overrides_option, path_argument, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fst_core.interfaces import Frontend
    from fst_core.pipeline.target import Target

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command("serve")
@path_argument("target")
@overrides_option
def command(target: Path, overrides: tuple[str, ...]) -> None:
    """Serve TARGET, a model's or a run's directory or a pipeline file, by its frontends.

    The first SIGTERM or Ctrl-C lets them finish what runs; a second one ends at once. A model's
    directory has no frontends of its own: choose one, as in -s serve.0.use=NAME.
    """
    from fst_core.pipeline.target import find_target

    serve(find_target(target, overrides))


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
        raise errors.exceptions[0] from None
    finally:
        await engine.close()
    return any(task.cancelled() for task in tasks)


async def _stop_all_when_one_ends(tasks: list[asyncio.Task[None]], stopping: asyncio.Event) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stopping.set()


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        # Not the loop's own handlers, which Windows does not have.
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
