r"""The lines of a text that comes in pieces of UTF-8: memory is bounded by a piece and the longest line.

A line ends at \n, and at nothing else. What comes out does not depend on the size of the pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["blocks", "line_ends", "stripped", "whole_lines"]

_WIDE_SPACES: Final = [
    space.encode()
    for space in "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
]
"""All that `str.strip` removes beyond ASCII."""
_WIDE_NUMBERS: Final = np.array([int.from_bytes(space) for space in _WIDE_SPACES])
_NEWLINE, _SPACE = b"\n "
_ASCII: Final = 128
_IS_SPACE: Final = np.array([chr(i).isspace() and i < _ASCII and i != _NEWLINE for i in range(256)])
_WIDEST: Final = 64
"""Characters of a margin; a wider one is removed line by line."""
_FEW: Final = 8
"""Where one of so many lines has a margin, all are stripped one by one."""
_FIRST: Final = 4096
"""Bytes by which the others are judged first."""


def whole_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield a text, many whole lines at a time, between two line ends: \n, lines, the last with its \n."""
    begun = [b"\n"]  # the pieces of a line whose end has not come yet
    for text in pieces:
        end = text.rfind(b"\n") + 1
        if end:
            yield b"".join([*begun, memoryview(text)[:end]])
            begun = [b"\n"]
        begun.append(text[end:])
    if any(begun[1:]):
        yield b"".join([*begun, b"\n"])


def line_ends(lines: bytes) -> NDArray[np.bool_]:
    r"""Return of each byte whether it is \n."""
    ends: NDArray[np.bool_] = np.frombuffer(lines, np.uint8) == _NEWLINE
    return ends


def stripped(lines: bytes) -> tuple[bytes, NDArray[np.bool_]]:
    r"""Remove the white space at both ends of every line, and find their ends as `line_ends` does.

    The lines stand between two line ends. What `str.strip` does line by line is done to all lines at
    once where only ASCII is removed, and from few of them.
    """
    first = lines[:_FIRST]
    if (
        first.count(b"\n ") * _FEW <= first.count(b"\n")
        and (kept := _stripped_at_once(lines)) is not None
    ):
        return kept
    lines = "\n".join(map(str.strip, lines.decode().split("\n"))).encode()
    return lines, line_ends(lines)


def _stripped_at_once(lines: bytes) -> tuple[bytes, NDArray[np.bool_]] | None:
    """Return what `stripped` does; None where it is quicker line by line."""
    characters, ends = np.frombuffer(lines, np.uint8), line_ends(lines)
    # Of each two bytes of which one alone ends a line, the other is the larger, unless it is white
    # space: then the larger is a space at most. In one step with bytes beyond ASCII: those wrap around.
    larger = np.maximum(characters[1:], characters[:-1])
    larger -= _SPACE + 1
    special = larger >= _ASCII - (_SPACE + 1)
    special &= ends[1:] != ends[:-1]
    if not special.any():  # far quicker than finding that there are no places
        return lines, ends
    pairs = np.flatnonzero(special)
    places = pairs + ends[pairs]
    if margins := np.count_nonzero(_IS_SPACE[characters[places]]):
        if margins * _FEW > np.count_nonzero(ends):
            return None
        kept = _without_margins(characters, np.flatnonzero(ends))
        return None if kept is None else _stripped_at_once(kept)
    return None if _are_wide_spaces(characters, ends, places) else (lines, ends)


def _without_margins(characters: NDArray[np.uint8], ends: NDArray[np.intp]) -> bytes | None:
    """Return lines without white space of ASCII next to their ends; None where there is much of it."""
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
    return characters[keep].tobytes()


def _are_wide_spaces(
    characters: NDArray[np.uint8], ends: NDArray[np.bool_], places: NDArray[np.intp]
) -> bool:
    """Return whether wider white space than ASCII's begins or ends at one of some places next to line ends."""
    places = places[characters[places] >= _ASCII]
    first, last = places[ends[places - 1]], places[ends[places + 1]]

    def numbers(places: NDArray[np.intp], count: int) -> NDArray[np.int64]:
        """Return as many bytes from places on as a number each."""
        found = np.zeros(len(places), np.int64)
        for step in range(count):
            found = found << 8 | characters[places + step]
        return found

    near = (numbers(first, 2), numbers(first, 3), numbers(last - 1, 2), numbers(last - 2, 3))
    return bool((np.concatenate(near)[:, None] == _WIDE_NUMBERS).any())


def blocks(pieces: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield a text's lines, without their ends, many at a time."""
    begun: list[bytes] = []  # the pieces of a line whose end has not come yet
    for text in pieces:
        first, *lines = text.split(b"\n")
        begun.append(first)
        if lines:
            ended = b"".join(begun)
            begun = [lines.pop()]
            yield [ended, *lines]
    if last := b"".join(begun):
        yield [last]
