"""A text that comes in pieces, and that may be most of the memory."""

from __future__ import annotations

from typing import Final

__all__ = ["LongText"]

_MANY: Final = 2**6
"""Pieces that are kept as they are."""


class LongText:
    """Joins the pieces of a text.

    Many of them are kept in UTF-8: as strings they would be there twice when they are joined, and a
    single character may double a string, but not its UTF-8.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._utf8 = bytearray()

    def add(self, piece: str) -> None:
        """Add a piece at the end."""
        self._pieces.append(piece)
        if len(self._pieces) > _MANY:
            self._utf8 += "".join(self._pieces).encode()
            self._pieces.clear()

    def take(self, last: str = "") -> str:
        """Add a last piece, return the whole, and begin anew."""
        if not (self._pieces or self._utf8):
            return last
        text = "".join([*self._pieces, last])
        self._pieces.clear()
        if self._utf8:
            self._utf8 += text.encode()
            text = self._utf8.decode()
            self._utf8 = bytearray()
        return text
