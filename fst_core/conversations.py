"""Conversations to learn from: ids, and which of them are the assistant's."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from fst_core.meta import labelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from fst_core.chat import ChatTemplate
    from fst_core.documents import Message
    from fst_core.interfaces.tokenizer import Tokenizer

    Lesson = tuple[NDArray[np.uint32], NDArray[np.uint8]]
    """Ids, (T,), and which of them carry loss, (T,): 1 for what the assistant writes, its end included."""

__all__ = ["Conversations", "is_answered"]


def is_answered(messages: Sequence[Message]) -> bool:
    """Say whether there is anything to learn from a conversation."""
    return any(message.role == "assistant" for message in messages)


class Conversations:
    """Encodes conversations so that what precedes an answer is, id for id, the prompt of an engine.

    One that has more than `longest` ids is continued in another lesson, from a turn of the user's
    on, and with what the system said at first: as a long talk is shortened in `fst chat`.
    """

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer, longest: int) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._longest = longest

    def lessons(self, messages: Sequence[Message], meta: str | None = None) -> Iterator[Lesson]:
        """Yield the lessons of one conversation; what follows its last answer is in none.

        Raises:
            UserError: a role is unknown.
            FstError: the template fails, or takes too long.
            MissingDependency: the template needs jinja2.
        """
        messages = labelled(messages, meta)
        system = tuple(takewhile(lambda message: message.role == "system", messages))
        turns = messages[len(system) :]
        begin = answered = 0  # the lesson's first turn, and the one behind its last answer
        ids: list[int] = []
        loss: list[int] = []
        for index, turn in enumerate(turns, 1):
            if turn.role != "assistant":
                continue
            prompt, answer = self._turn(system, turns[begin:index])
            end = int(answer[-1] != self._tokenizer.end_id)  # added where the lesson ends
            if len(prompt) + len(answer) + end > self._longest and answered > begin:
                begin = answered
                prompt, answer = self._turn(system, turns[begin:index])
            # It begins elsewhere now, or the template rewrites what was said.
            if prompt[: len(ids)] != ids:
                yield self._lesson(ids, loss)
                ids, loss = [], []
            loss += [0] * (len(prompt) - len(ids)) + [1] * len(answer)
            ids = prompt + answer
            answered = index
        if ids:
            yield self._lesson(ids, loss)

    def _turn(
        self, system: tuple[Message, ...], turns: Sequence[Message]
    ) -> tuple[list[int], list[int]]:
        return self._template.encode_turn((*system, *turns), self._tokenizer)

    def _lesson(self, ids: list[int], loss: list[int]) -> Lesson:
        """Return a lesson as arrays; it ends with the `end_id`, whatever ends a turn."""
        if ids[-1] != self._tokenizer.end_id:
            ids, loss = [*ids, self._tokenizer.end_id], [*loss, 1]
        return np.array(ids, np.uint32), np.array(loss, np.uint8)
