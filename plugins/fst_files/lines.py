r"""The text and the lines of a file, streamed: memory is bounded by a chunk and the longest line.

A line ends at \n, \r\n or \r, and at nothing else; a byte order mark at the start is dropped. What
comes out does not depend on the size of the chunks.
"""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Final

import numpy as np

from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["blocks", "pieces", "stripped", "whole_lines"]

_BOM = "\ufeff"
_WIDE_SPACES: Final = (
    "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""All that `str.strip` removes beyond ASCII."""
_NEWLINE, _SPACE = b"\n "
_IS_SPACE: Final = np.array([chr(i).isspace() and i < 128 and i != _NEWLINE for i in range(256)])
_WIDEST: Final = 64
"""Characters of a margin; a wider one is removed line by line."""


def pieces(path: Path, name: str, chunk_bytes: int) -> Iterator[str]:
    r"""Yield a file's text piece by piece, every line end turned into \n.

    Raises:
        DocumentError: the file is not UTF-8; the message has `name` and the byte's offset.
        OSError: the file cannot be read.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    position = 0
    begun = False
    with path.open("rb", buffering=0) as file:
        while True:
            chunk = file.read(chunk_bytes)
            position += len(chunk)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # The object is what the decoder had held back, and this chunk: they end together.
                offset = position - len(error.object) + error.start
                raise DocumentError(f"{name}: not UTF-8 at byte {offset}: {error.reason}") from None
            if text and not begun:
                begun = True
                text = text.removeprefix(_BOM)
            if text:
                yield text
            if not chunk:
                return


def whole_lines(path: Path, name: str, chunk_bytes: int) -> Iterator[str]:
    r"""Yield a file's text, many whole lines at a time, each ended by \n, the last one too.

    Raises:
        DocumentError: the file is not UTF-8; the message has `name` and the byte's offset.
        OSError: the file cannot be read.
    """
    begun: list[str] = []  # the pieces of a line whose end has not come yet
    for text in pieces(path, name, chunk_bytes):
        end = text.rfind("\n") + 1
        if end:
            yield "".join([*begun, text[:end]])
            begun = []
        begun.append(text[end:])
    if last := "".join(begun):
        yield f"{last}\n"


def stripped(lines: str) -> str:
    r"""Remove the white space at both ends of every line; each ends with \n.

    What `str.strip` does line by line is done to all lines at once where only ASCII is removed, and
    not much of it.
    """
    if lines.isascii() or not any(space in lines for space in _WIDE_SPACES):
        characters = np.frombuffer(b"\n" + lines.encode(), np.uint8)
        ends = characters == _NEWLINE
        low = (characters <= _SPACE) & ~ends
        if not (ends[:-1] & low[1:] | ends[1:] & low[:-1]).any():
            return lines
        kept = _without_margins(characters, np.flatnonzero(ends))
        if kept is not None:
            return kept[1:].tobytes().decode()
    return "\n".join(map(str.strip, lines.split("\n")))


def _without_margins(
    characters: NDArray[np.uint8], ends: NDArray[np.intp]
) -> NDArray[np.uint8] | None:
    """Return the UTF-8 of lines without white space next to their ends; None where there is much of it."""
    keep = np.ones(len(characters), np.bool_)
    for begin, step in ((ends[:-1], 1), (ends[1:], -1)):
        places = begin
        for _ in range(_WIDEST):
            places = places + step
            places = places[_IS_SPACE[characters[places]]]
            if not len(places):
                break
            keep[places] = False
        else:
            return None
    return characters[keep]


def blocks(path: Path, name: str, chunk_bytes: int) -> Iterator[list[str]]:
    """Yield a file's lines, without their ends, many at a time.

    Raises:
        DocumentError: the file is not UTF-8; the message has `name` and the byte's offset.
        OSError: the file cannot be read.
    """
    begun: list[str] = []  # the pieces of a line whose end has not come yet
    for text in pieces(path, name, chunk_bytes):
        first, *lines = text.split("\n")
        begun.append(first)
        if lines:
            ended = "".join(begun)
            begun = [lines.pop()]
            yield [ended, *lines]
    if last := "".join(begun):
        yield [last]
