"""Prompts: a text, ids or a conversation become the ids that a generation goes on from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeGuard

from fst_core import Message
from fst_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core import Tokenizer
    from fst_core.chat import ChatTemplate

    Prompt = str | tuple[int, ...] | tuple[Message, ...]

__all__ = ["Prompts", "is_conversation"]

_SHORT: Final = 10_000
"""So many characters are encoded in no time; others wait for longer texts no longer than for a step."""


class Prompts:
    """Encodes prompts for one model; what takes time is done in another thread."""

    def __init__(self, tokenizer: Tokenizer, chat: ChatTemplate) -> None:
        self._tokenizer = tokenizer
        self._chat = chat

    async def encode(self, prompt: Prompt) -> list[int]:
        """Return the ids of a prompt.

        Where no control id begins a document, an empty prompt goes on from the one that ends the
        document before.

        Raises:
            UserError: an id is not in the vocabulary, or the prompt is no prompt.
            FstError: the chat template failed.
        """
        if is_conversation(prompt):
            return await asyncio.to_thread(self._chat.encode, prompt, self._tokenizer)
        if isinstance(prompt, str) and len(prompt) > _SHORT:
            return await asyncio.to_thread(self._tokenizer.encode_prompt, prompt)
        if isinstance(prompt, str) or not prompt:
            text = prompt if isinstance(prompt, str) else ""
            return self._tokenizer.encode_prompt(text) or [self._tokenizer.end_id]
        return check_ids(prompt, self._tokenizer.vocab_size, "prompt")


def is_conversation(prompt: Prompt) -> TypeGuard[tuple[Message, ...]]:
    """Say whether a prompt is the turns of a conversation."""
    return not isinstance(prompt, str) and any(isinstance(each, Message) for each in prompt)


def check_ids(ids: Sequence[object], vocabulary: int, place: str) -> list[int]:
    """Return ids if they are of the vocabulary.

    Raises:
        UserError: they are not; the message begins with the place.
    """
    known = [i for i in ids if isinstance(i, int) and 0 <= i < vocabulary]
    if len(known) < len(ids):
        bad = next(i for i in ids if not (isinstance(i, int) and 0 <= i < vocabulary))
        raise UserError(f"{place}: the id {bad!r} is not in the vocabulary of {vocabulary}")
    return known
