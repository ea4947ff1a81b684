"""Prompts: a text, ids or a conversation become the ids that a generation goes on from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeGuard

from fst_core import Message
from fst_core.errors import UnsupportedParameter, UserError
from fst_core.meta import encode_prompt, labelled

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

    async def encode(self, prompt: Prompt, meta: str | None = None) -> list[int]:
        """Return the ids of a prompt, with its label as documents have theirs.

        Where no control id begins a document, an empty prompt goes on from the one that ends the
        document before.

        Raises:
            UnsupportedParameter: a prompt of ids has a label.
            UserError: an id is not in the vocabulary, or the prompt is no prompt.
            FstError: the chat template failed.
        """
        if is_conversation(prompt):
            turns = labelled(prompt, meta)
            return await asyncio.to_thread(self._chat.encode, turns, self._tokenizer)
        if isinstance(prompt, str) or not prompt:
            text = prompt if isinstance(prompt, str) else ""
            if len(text) > _SHORT:
                return await asyncio.to_thread(encode_prompt, self._tokenizer, text, meta)
            return encode_prompt(self._tokenizer, text, meta) or [self._tokenizer.end_id]
        if meta is not None:
            raise UnsupportedParameter("meta", "ids are used as they are, without a label")
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
