"""The contract of frontends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import pytest

from fst_core.testing.component import ComponentContract
from fst_core.testing.echo import FAULTY, SLOW, EchoEngine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fst_core import Frontend

__all__ = ["FrontendContract"]


class FrontendContract(ComponentContract):
    r"""What every frontend does. A subclass names it, and asks it something as a person would.

        class TestSocket(FrontendContract):
            use = "socket"
            settings = {"port": 9229}

            async def ask(self, prompt):
                reader, writer = await asyncio.open_connection("127.0.0.1", 9229)
                writer.write(f"{prompt}\n".encode())
                answer = (await reader.read()).decode()
                writer.close()
                return answer

    It asserts that the engine's text comes through, several at a time too; that a request that
    fails does not end the frontend; that `serve` returns when `stopping` is set, after the answers
    that were begun, and leaves when cancelled; and that it can then serve again.
    """

    kind: ClassVar[str] = "frontend"
    seconds: ClassVar[float] = 10.0
    """How long it may take to begin, and to stop."""

    async def ask(self, prompt: str) -> str:
        """Return the text that the frontend gives for a prompt; an error while it is not up yet."""
        raise NotImplementedError

    def test_the_engines_text_comes_through(self) -> None:
        """In any script, and to each who asks what was answered to it."""

        async def talk(_: asyncio.Event) -> None:
            prompts = ["One two three", "Ещё «ёлка»", "日本語 \U0001f44d", *map(str, range(10))]
            answers = await asyncio.gather(*map(self.ask, prompts))
            for prompt, answer in zip(prompts, answers, strict=True):
                assert prompt in answer

        self._serving(talk)

    def test_a_request_that_fails_does_not_end_it(self) -> None:
        """Who asks next is answered."""

        async def talk(_: asyncio.Event) -> None:
            await asyncio.gather(self.ask(FAULTY), return_exceptions=True)
            assert "still there" in await self.ask("still there")

        self._serving(talk)

    def test_answers_that_were_begun_are_finished(self) -> None:
        """When `stopping` is set, who has asked is still answered."""

        async def talk(stopping: asyncio.Event) -> None:
            asked = asyncio.create_task(self.ask(SLOW))
            await asyncio.sleep(0.25)
            stopping.set()
            assert SLOW in await asked

        self._serving(talk)

    def test_it_leaves_when_cancelled_and_can_serve_again(self) -> None:
        """Nothing is held back: neither a port nor a task."""

        async def cancel() -> None:
            serving = asyncio.create_task(self._frontend().serve(EchoEngine(), asyncio.Event()))
            await self._up(serving)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(serving, self.seconds)
            await asyncio.sleep(0.1)  # for what a closed connection leaves to do
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(cancel())
        self.test_the_engines_text_comes_through()

    def _frontend(self) -> Frontend:
        frontend: Frontend = self.build()
        return frontend

    def _serving(self, talk: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Serve while `talk` runs; then set `stopping`, if it has not, and see `serve` return."""

        async def whole() -> None:
            stopping = asyncio.Event()
            serving = asyncio.create_task(self._frontend().serve(EchoEngine(), stopping))
            try:
                await self._up(serving)
                await asyncio.wait_for(talk(stopping), self.seconds)
                stopping.set()
                await asyncio.wait_for(serving, self.seconds)
            finally:
                serving.cancel()
                await asyncio.wait([serving])

        asyncio.run(whole())

    async def _up(self, serving: asyncio.Task[None]) -> None:
        """Ask until there is an answer."""
        deadline = asyncio.get_running_loop().time() + self.seconds
        while True:
            try:
                await self.ask("Are you there?")
            except Exception:
                late = asyncio.get_running_loop().time() > deadline
                if serving.done():
                    await serving  # raises what ended it
                if serving.done() or late:
                    raise
                await asyncio.sleep(0.05)
            else:
                return
