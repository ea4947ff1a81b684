"""The registry of answers that run or wait: how many a user has, and how they are stopped."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fst_telegram.background import Background
    from fst_telegram.settings import TelegramSettings
    from fst_telegram.store import Answer

__all__ = ["Answers", "Running"]


class Running:
    """An answer that runs or waits, and its work, which can be stopped."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.chat = answer.chat
        self.stopped: str | None = None
        """Why it was stopped, as a state of the answer."""
        self._work: asyncio.Task[str] | None = None

    def stop(self, state: str) -> None:
        """End the work, now or as soon as it begins."""
        self.stopped = self.stopped or state
        if self._work is not None:
            self._work.cancel()

    async def work(self, work: Awaitable[str]) -> str:
        """Do the work, and return the state that it gives, or that it was stopped with."""
        self._work = asyncio.ensure_future(work)
        if self.stopped:
            self._work.cancel()
        try:
            await asyncio.wait([self._work])
        finally:
            self._work.cancel()
            await asyncio.wait([self._work])
        return self.stopped or "failed" if self._work.cancelled() else self._work.result()


class Answers:
    """The answers that run or wait, in the order in which they were asked for."""

    def __init__(self, settings: TelegramSettings, background: Background) -> None:
        self._running, self._waiting = settings.running_per_user, settings.waiting_per_user
        self._background = background
        self._all: dict[int, Running] = {}
        self._places: dict[int, asyncio.Semaphore] = {}
        self._users: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def has_room(self, user: int) -> bool:
        """Return whether a user may ask for one more."""
        return self._users[user] < self._running + self._waiting

    @asynccontextmanager
    async def place(self, user: int) -> AsyncIterator[None]:
        """Wait until one more of a user's answers may run."""
        async with self._places.setdefault(user, asyncio.Semaphore(self._running)):
            yield

    def start(self, answer: Answer, run: Callable[[Running], Awaitable[None]]) -> None:
        """Begin an answer in a task of its own."""
        running = Running(answer)
        self._all[answer.id] = running
        self._users[answer.user] += 1

        async def whole() -> None:
            try:
                await run(running)
            finally:
                del self._all[answer.id]
                self._users[answer.user] -= 1
                if not self._users[answer.user]:
                    del self._users[answer.user]
                    self._places.pop(answer.user, None)

        self._background.start(whole)

    def stop(
        self,
        state: str,
        *,
        chat: int | None = None,
        user: int | None = None,
        id_: int | None = None,
    ) -> int:
        """Stop the answers of a chat, of a user in it, one of them, or all; return how many."""
        found = [
            running for running in self._all.values()
            if chat in {None, running.chat}
            and user in {None, running.answer.user}
            and id_ in {None, running.answer.id}
        ]  # fmt: skip
        for running in found:
            running.stop(state)
        return len(found)
