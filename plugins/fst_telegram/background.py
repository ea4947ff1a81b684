"""Background: what is done beside the taking of updates, none of which may end the bot."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

__all__ = ["Background"]

_log = logging.getLogger(__name__)


class Background:
    """Starts tasks in a group that waits for them, or cancels them, at its end."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def start(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> asyncio.Task[None]:
        """Do some work; its failure is logged."""

        async def guarded() -> None:
            try:
                await work(*arguments)
            except Exception as error:  # noqa: BLE001  # one task's failure is no other's
                _log.error(
                    "%s failed: %s", getattr(work, "__qualname__", "a task"), type(error).__name__
                )

        return self._tasks.create_task(guarded())
