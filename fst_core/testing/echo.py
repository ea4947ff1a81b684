"""An engine that says what it was told, for the contract of frontends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from fst_core import Chunk, Engine
from fst_core.errors import FstError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path

    import torch

    from fst_core import Message, Request, Tokenizer
    from fst_core.interfaces.engine import Samplers

__all__ = ["FAULTY", "SLOW", "EchoEngine"]

FAULTY = "this request fails"
"""A prompt that ends in an error."""
SLOW = "this request takes half a second"
"""A prompt whose answer takes its time."""


class EchoEngine(Engine):
    """Generates the prompt, or the last message of a conversation, a word a chunk."""

    def for_module(
        self,
        module: torch.nn.Module,  # noqa: ARG002  # an echo needs no model
        tokenizer: Tokenizer,  # noqa: ARG002  # nor a tokenizer
        samplers: Samplers,  # noqa: ARG002  # nor samplers
        context_length: int,  # noqa: ARG002  # nor a limit
        *,
        supports_cache: bool = True,  # noqa: ARG002  # nor a cache
    ) -> Self:
        """Return this engine."""
        return self

    def for_artefact(self, directory: Path, samplers: Samplers) -> Self:  # noqa: ARG002  # an echo needs no model
        """Return this engine."""
        return self

    def describe(self) -> Mapping[str, Any]:
        """Return what frontends show."""
        return {"name": "echo", "context_length": 1024, "device": "cpu", "dtype": "float32"}

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield the prompt's words."""
        text = _text(request.prompt)
        if FAULTY in text:
            raise FstError("the echo died away")
        for word in text.split(" "):
            await asyncio.sleep(0.1 if SLOW in text else 0)
            yield Chunk(text=f"{word} ", ids=(0,))
        yield Chunk(finish_reason="stop", prompt_tokens=len(await self.encode(request.prompt)))

    async def encode(self, prompt: str | tuple[int, ...] | tuple[Message, ...]) -> tuple[int, ...]:
        """Return the bytes of what the person said."""
        return tuple(_text(prompt).encode())

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text of bytes."""
        return bytes(ids).decode(errors="replace")


def _text(prompt: str | tuple[int, ...] | tuple[Message, ...]) -> str:
    """Return what the person said."""
    if isinstance(prompt, str):
        return prompt
    last = prompt[-1] if prompt else ""
    return str(last) if isinstance(last, int) else getattr(last, "content", "")
