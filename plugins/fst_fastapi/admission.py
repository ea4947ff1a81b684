"""Admission: how many requests are inside, and which of them generate."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from fst_fastapi.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["Line", "Ticket"]

_WEIGHT: Final = 0.1
"""Of the newest generation in the mean time that one takes."""
_LONGEST: Final = 60
"""Clients take no advice to wait for longer than two minutes."""


class Line:
    """The line before the engine, first come, first served.

    A request enters it before any work is done for it, and is refused at once where it is full. Its
    generations then take the places of those that run, one after another.
    """

    def __init__(self, running: int, waiting: int, waiting_seconds: float) -> None:
        self.places = running
        self.capacity = running + waiting
        self.inside = 0
        """Generations of requests that have entered."""
        self.running = 0
        self._free = asyncio.Semaphore(running)
        self._waiting_seconds = waiting_seconds
        self._mean_seconds = 1.0

    @property
    def waiting(self) -> int:
        """How many generations have no place yet."""
        return self.inside - self.running

    def check(self, count: int = 1) -> None:
        """Refuse a request for which there is no room, as it would be refused when it enters.

        Raises:
            ApiError: too many are inside.
        """
        if self.inside + count > self.capacity:
            raise self._full(f"{self.running} requests are running and {self.waiting} waiting")

    @contextmanager
    def enter(self, count: int) -> Iterator[Ticket]:
        """Let a request of so many generations in.

        Raises:
            ApiError: too many are inside.
        """
        self.check(count)
        self.inside += count
        ticket = Ticket(self, count)
        try:
            yield ticket
        finally:
            self.inside -= ticket.left

    async def _take(self, *, patient: bool) -> None:
        try:
            async with asyncio.timeout(None if patient else self._waiting_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise self._full(
                f"this request waited {self._waiting_seconds:g} s for a place"
            ) from None
        self.running += 1

    def _release(self, seconds: float) -> None:
        self.running -= 1
        self.inside -= 1
        self._mean_seconds += _WEIGHT * (seconds - self._mean_seconds)
        self._free.release()

    def _full(self, why: str) -> ApiError:
        seconds = self._mean_seconds * (1 + self.waiting / self.places)
        wait = str(min(_LONGEST, max(1, math.ceil(seconds))))
        return ApiError(
            503,
            f"the server is full: {why}; try again in {wait} s",
            code="server_overloaded",
            headers={"retry-after": wait},
        )


class Ticket:
    """A request that is in the line."""

    def __init__(self, line: Line, count: int) -> None:
        self._line = line
        self.left = count
        """How many of its generations have not ended."""
        self._begun = False
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and keep it for one generation.

        A request waits for one place at a time, so that one with many generations does not keep
        others waiting; once its first has a place, the others wait as long as it takes.

        Raises:
            ApiError: the request waited too long.
        """
        async with self._turn:
            await self._line._take(patient=self._begun)  # noqa: SLF001  # the line's other half
            self._begun = True
        since = time.monotonic()
        try:
            yield
        finally:
            self.left -= 1
            self._line._release(time.monotonic() - since)  # noqa: SLF001  # the same
