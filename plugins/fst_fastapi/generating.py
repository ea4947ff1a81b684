"""Generating: a request's generations, each in its place of the line."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fst_core.generation import gather
from fst_fastapi.blame import plugin_at_fault
from fst_fastapi.errors import is_clients

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from fst_core import Chunk, Generation, Request
    from fst_fastapi.admission import Ticket
    from fst_fastapi.service import Service

__all__ = ["Generating"]


class Generating:
    """The generations of one request, and what they use."""

    def __init__(self, service: Service, ticket: Ticket, n: int) -> None:
        self._service = service
        self._ticket = ticket
        self._n = n
        self._since = time.monotonic()
        self._prompt_tokens: dict[int, int] = {}
        self._completion_tokens = 0

    def usage(self) -> dict[str, int]:
        """Return how many tokens there were; a prompt counts once."""
        prompt = sum(self._prompt_tokens.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt + self._completion_tokens,
        }

    async def whole(self, requests: Sequence[Request]) -> list[Generation]:
        """Return all generations, complete."""
        return await _together([gather(self._chunks(*each)) for each in enumerate(requests)])

    async def each(
        self, requests: Sequence[Request], emit: Callable[[int, Chunk], Awaitable[None]]
    ) -> None:
        """Give every chunk to `emit` with the number of its request, as it comes."""

        async def one(index: int, request: Request) -> None:
            async with aclosing(self._chunks(index, request)) as chunks:
                async for chunk in chunks:
                    await emit(index, chunk)

        await _together([one(*each) for each in enumerate(requests)])

    async def _chunks(self, index: int, request: Request) -> AsyncGenerator[Chunk, None]:
        metrics = self._service.metrics
        before = self._since
        reason: str | None = None
        first = True
        async with self._ticket.place():
            try:
                async with aclosing(self._service.engine.stream(request)) as chunks:
                    async for chunk in chunks:
                        now = time.monotonic()
                        if first:
                            metrics.first_token.observe(now - before)
                            first = False
                        else:
                            metrics.between_tokens.observe(now - before)
                        before = now
                        self._count(index, chunk)
                        reason = chunk.finish_reason
                        yield chunk
            except Exception as error:
                if not is_clients(error) and (plugin := plugin_at_fault(error)):
                    metrics.plugin_error(plugin)
                raise
        if reason is not None:
            metrics.finished(reason)

    def _count(self, index: int, chunk: Chunk) -> None:
        self._completion_tokens += len(chunk.ids)
        self._service.metrics.generation_tokens.inc(len(chunk.ids))
        if chunk.prompt_tokens is not None:
            prompt = index // self._n
            if prompt not in self._prompt_tokens:
                self._service.metrics.prompt_tokens.inc(chunk.prompt_tokens)
            self._prompt_tokens[prompt] = chunk.prompt_tokens


async def _together(works: Sequence[Any]) -> list[Any]:
    """Await all; if one fails, the others end too, and its error is raised."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
