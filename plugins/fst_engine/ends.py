"""Ends: the ids with which a model ends its answer, beside the one that ends a document."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from fst_core import Message
from fst_core.errors import FstError
from fst_engine.prompts import is_conversation

if TYPE_CHECKING:
    import torch

    from fst_core import Tokenizer
    from fst_core.chat import ChatTemplate
    from fst_engine.prompts import Prompt

__all__ = ["Ends"]


class Ends:
    """Knows the ends of a model's answers: what its files name, and what its chat template writes.

    `generation_config` may name several ids, as the module of `transformers` has it; a template closes
    the assistant's turn with a control token, which an answer then ends with.
    """

    def __init__(self, module: torch.nn.Module, tokenizer: Tokenizer, chat: ChatTemplate) -> None:
        config = getattr(module, "generation_config", None)
        named = getattr(config, "eos_token_id", None)
        ids = named if isinstance(named, list) else [named]
        self._named = frozenset(
            i for i in ids if isinstance(i, int) and 0 <= i < tokenizer.vocab_size
        )
        self._tokenizer = tokenizer
        self._chat = chat
        self._found: frozenset[int] | None = None

    async def of(self, prompt: Prompt) -> frozenset[int]:
        """Return the ids that end what follows a prompt; none but a conversation's has ends of its own."""
        if not is_conversation(prompt):
            return frozenset()
        if self._found is None:  # the template's process begins with the first conversation
            self._found = self._named | await asyncio.to_thread(self._written)
        return self._found

    def _written(self) -> frozenset[int]:
        """Return the id that the template writes behind an answer."""
        turns = [Message("user", "Hi"), Message("assistant", "Hello")]
        with suppress(FstError):  # some templates take other conversations only
            _, answer = self._chat.encode_turn(turns, self._tokenizer)
            return frozenset(answer[-1:])
        return frozenset()
