"""The paragraphs of a word processor's document, in the order of reading."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Paragraphs", "collapsed", "joined"]

_SPACES: Final = re.compile(r"[ \t\r\n\f]+")


class Paragraphs:
    """Gathers text into paragraphs, and those of a table's cells into a line a row.

    Paragraphs may stand inside others, as those of a text frame do; they come before what is around
    them.
    """

    def __init__(self) -> None:
        self._open: list[list[str]] = []
        self._blocks: list[list[str]] = [[]]

    def begin(self) -> None:
        """Begin a paragraph."""
        self._open.append([])

    def write(self, text: str | None) -> None:
        """Write text; what stands outside of any paragraph is none."""
        if self._open and text:
            self._open[-1].append(text)

    def end(self) -> None:
        """End the innermost paragraph."""
        self._blocks[-1].append("".join(self._open.pop()))

    def begin_block(self) -> None:
        """Begin a row or a cell."""
        self._blocks.append([])

    def end_block(self, separator: str) -> None:
        """End the innermost row or cell: what is in it becomes one line."""
        parts = self._blocks.pop()
        self._blocks[-1].append(separator.join(parts))

    def text(self) -> str:
        """Return the paragraphs, a line each."""
        return joined(self._blocks[0])


def joined(paragraphs: Iterable[str]) -> str:
    """Return paragraphs as lines; of empty ones in a row one stays."""
    lines: list[str] = []
    for paragraph in paragraphs:
        line = paragraph.strip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()


def collapsed(text: str) -> str:
    """Return text as markup shows it: white space of any length is one space."""
    return _SPACES.sub(" ", text)
