"""Splitting: a long text becomes several messages, and none of it is lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LIMIT", "fences", "split", "units"]

LIMIT: Final = 4000
"""Units of UTF-16 in a message; Telegram takes 4,096, counted in a way that it does not tell."""

_FENCE = re.compile(r"^```([^\n`]*)\n.*?(?:^```[^\S\n]*$|\Z)", re.MULTILINE | re.DOTALL)


def units(text: str) -> int:
    """Return the length of a text in units of UTF-16, in which Telegram measures."""
    return len(text) + sum(character > "\uffff" for character in text)


def fences(text: str) -> list[tuple[int, int, str]]:
    """Return start, end and language of each block of code; the last one may be unfinished."""
    return [(m.start(), m.end(), m[1].strip()) for m in _FENCE.finditer(text)]


def split(text: str, limit: int = LIMIT) -> list[tuple[int, int]]:
    """Return the borders of pieces that together are the text, each of at most `limit` units.

    A piece ends before a block of code that it cannot hold, else at a line's end, else at a space,
    and only within a block or word that no message can hold there. What follows a piece never
    changes it, but for a block whose last line is not finished.
    """
    blocks = [(start, end) for start, end, _ in fences(text)]
    pieces, start = [], 0
    while (end := _reach(text, start, limit)) < len(text):
        cut = _cut(text, start, end, blocks)
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, len(text))]


def _reach(text: str, start: int, limit: int) -> int:
    """Return where the longest piece from `start` ends."""
    end = min(start + limit, len(text))
    while (excess := units(text[start:end]) - limit) > 0:
        end -= (excess + 1) // 2  # a character has two units at most
    return end


def _cut(text: str, start: int, end: int, blocks: Sequence[tuple[int, int]]) -> int:
    """Return where to cut between `start` and `end`."""
    opened = next((b for b, e in blocks if b < end < e), start)
    if text[start:opened].strip():
        return opened
    for separator in ("\n", " "):
        cut = text.rfind(separator, (start + end) // 2, end) + 1
        within = next((b for b, e in blocks if b < cut < e), opened)
        if cut and within == opened and text[start:cut].strip():
            return cut
    return end
