"""Formatting: entities over a text that stays exactly as it is.

No markup is ever parsed: what a model writes is shown, its blocks of code as code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from aiogram.utils.formatting import Bold, Italic, Pre, Text

from fst_telegram.split import fences, split

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiogram.types import MessageEntity

__all__ = ["Piece", "pieces"]


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one message."""

    text: str
    entities: tuple[MessageEntity, ...] = ()

    def looks_like(self, other: Piece | None) -> bool:
        """Return whether Telegram, which cuts white space off, would show both alike."""
        return (
            other is not None
            and self.text.rstrip() == other.text.rstrip()
            and [e.type for e in self.entities] == [e.type for e in other.entities]
        )


def pieces(prompt: str, answer: str, note: str = "") -> list[Piece]:
    """Return the messages of a prompt in bold, its answer, and a note in italics."""
    note = f"\n\n{note}" if note and (prompt + answer).strip() else note
    text = prompt + answer + note
    marks: list[tuple[int, int, Callable[[str], Text]]] = [(0, len(prompt), Bold)]
    marks += [
        (max(start, len(prompt)), end, partial(Pre, language=language or None))
        for start, end, language in fences(prompt + answer)
        if end > len(prompt)
    ]
    marks.append((len(prompt + answer), len(text), Italic))
    return [_piece(text, start, end, marks) for start, end in split(text)]


def _piece(
    text: str, start: int, end: int, marks: list[tuple[int, int, Callable[[str], Text]]]
) -> Piece:
    nodes: list[str | Text] = []
    at = start
    for first, last, mark in marks:
        begin, finish = max(first, start), min(last, end)
        if text[begin:finish].strip():
            nodes += [text[at:begin], mark(text[begin:finish])]
            at = finish
    said, entities = Text(*nodes, text[at:end]).render()
    return Piece(said, tuple(entities))
