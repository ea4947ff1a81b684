"""Prompts: what the engine gets of a conversation or a text, as much of it as its context holds."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fst_core import Message
from fst_core.errors import UnsupportedParameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core import Engine
    from fst_telegram.store import Answer

__all__ = ["Prompt", "conversation", "shortened"]

Prompt = str | tuple[int, ...] | tuple[Message, ...]


def conversation(before: Sequence[Answer], prompt: str) -> tuple[Message, ...]:
    """Return the messages of earlier turns and of what was said now."""
    turns = [(a.prompt, a.text) for a in before if a.mode == "chat"]
    said = [m for user, bot in turns for m in (Message("user", user), Message("assistant", bot))]
    return (*said, Message("user", prompt))


async def shortened(engine: Engine, prompt: Prompt, new: int) -> Prompt:
    """Leave out the beginning of a prompt that leaves no room for `new` tokens.

    At least half of the context stays the prompt's. What an engine without a tokenizer cannot
    measure stays as it is.
    """
    length = engine.describe().get("context_length")
    if length is None:
        return prompt
    room = max(length - new, length // 2)
    with suppress(UnsupportedParameter):
        ids = await engine.encode(prompt)
        if isinstance(prompt, str):
            return prompt if len(ids) <= room else ids[-room:]
        while len(ids) > room and len(prompt) > 2:
            prompt = prompt[2:]
            ids = await engine.encode(prompt)
    return prompt
