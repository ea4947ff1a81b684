"""JSON read value by value, so that a large file is never held whole."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["JsonStream"]

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_DECODER: Final = json.JSONDecoder()
_LONGEST: Final = 2**26
"""Characters of one value; a longer one is no message."""


class JsonStream:
    """A position in a JSON text that comes in pieces.

    Whoever iterates over `members` or `elements` reads the value that stands there before the next.
    """

    def __init__(self, pieces: Iterator[str], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._text = ""
        self._at = 0
        self._before = 0  # characters before `_text`

    def members(self) -> Iterator[str]:
        """Yield the key of each member of an object.

        Raises:
            DocumentError: there is no object here, or it is damaged.
        """
        for _ in self._entries("{", "}"):
            key = self.value()
            if not isinstance(key, str):
                raise self._damage("a key that is not a string")
            self._take(":")
            yield key

    def elements(self) -> Iterator[None]:
        """Yield once for each element of an array.

        Raises:
            DocumentError: there is no array here, or it is damaged.
        """
        return self._entries("[", "]")

    def value(self) -> Any:
        """Return the value that begins here.

        Raises:
            DocumentError: it is damaged, or too long.
        """
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._fill(2 * (len(self._text) - self._at)):
                    raise self._damage(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._damage(str(error)) from None
            else:
                # A number that ends with the text may go on.
                if end < len(self._text) or not self._fill(1):
                    self._at = end
                    return value

    def _entries(self, begin: str, end: str) -> Iterator[None]:
        self._take(begin)
        if self._peek() == end:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == end:
                self._at += 1
                return
            self._take(",")

    def _take(self, character: str) -> None:
        found = self._peek()
        if found != character:
            raise self._damage(f"{found!r} instead of {character!r}")
        self._at += 1

    def _peek(self) -> str:
        """Return the next character that is no white space; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None  # it matches nothing too
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill(1):
                return ""

    def _fill(self, characters: int) -> bool:
        """Read so many more characters, and return whether there were any."""
        rest = self._text[self._at :]
        if len(rest) > _LONGEST:
            raise self._damage(f"a value of more than {_LONGEST:,} characters")
        more: list[str] = []
        for piece in self._pieces:
            more.append(piece)
            characters -= len(piece)
            if characters <= 0:
                break
        self._before += self._at
        self._text, self._at = "".join([rest, *more]), 0
        return bool(more)

    def _damage(self, what: str) -> DocumentError:
        place = self._before + self._at + 1
        return DocumentError(f"{self._name}: damaged JSON at character {place}: {what}")
