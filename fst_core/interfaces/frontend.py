"""Frontends bring an engine to people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from fst_core.interfaces.engine import Engine

__all__ = ["Frontend"]


class Frontend(ABC):
    """Serves an engine until told to stop; signals are the business of `fst serve` alone.

    An author writes a component (see `Tokenizer` for the two modules) whose class is, in short:

        class SocketFrontend(Frontend):
            def __init__(self, settings: SocketSettings) -> None:
                self.settings = settings

            async def serve(self, engine, stopping):
                async def answer(reader, writer):
                    prompt = (await reader.readline()).decode()
                    async for chunk in engine.stream(Request(prompt=prompt)):
                        writer.write(chunk.text.encode())
                    writer.close()

                async with await asyncio.start_server(answer, "127.0.0.1", self.settings.port):
                    await stopping.wait()
    """

    @abstractmethod
    async def serve(self, engine: Engine, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set: then accept nothing new, finish within the drain time, return.

        Cancellation means: leave now.
        """
