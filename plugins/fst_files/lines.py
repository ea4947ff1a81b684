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
_WIDE_LEADS: Final = sorted({space[:1] for space in _WIDE_SPACES})
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
    r"""Yield a text, many whole lines at a time, each ended by \n, the last one too."""
    begun: list[bytes] = []  # the pieces of a line whose end has not come yet
    for text in pieces:
        end = text.rfind(b"\n") + 1
        if end:
            yield b"".join([*begun, text[:end]])
            begun = []
        begun.append(text[end:])
    if last := b"".join(begun):
        yield last + b"\n"


def line_ends(lines: bytes | NDArray[np.uint8]) -> NDArray[np.bool_]:
    r"""Return of each byte whether it is \n."""
    ends: NDArray[np.bool_] = np.frombuffer(lines, np.uint8) == _NEWLINE
    return ends


def stripped(lines: bytes) -> bytes:
    r"""Remove the white space at both ends of every line; each ends with \n.

    What `str.strip` does line by line is done to all lines at once where only ASCII is removed, and
    from few of them.
    """
    first = lines[:_FIRST]
    if (
        first.count(b"\n ") * _FEW <= first.count(b"\n")
        and (kept := _stripped_at_once(lines)) is not None
    ):
        return kept
    return "\n".join(map(str.strip, lines.decode().split("\n"))).encode()


def _stripped_at_once(lines: bytes) -> bytes | None:
    """Return what `stripped` does; None where it is quicker line by line."""
    characters, ends, at_end, larger = _in_pairs(lines)
    margins = np.count_nonzero(at_end & (larger <= _SPACE))
    if margins:
        if margins * _FEW > np.count_nonzero(ends):
            return None
        kept = _without_margins(characters, np.flatnonzero(ends))
        if kept is None:
            return None
        lines = kept
    may_be_wide = not lines.isascii() and any(lead in lines for lead in _WIDE_LEADS)
    return None if may_be_wide and _has_wide_margins(lines) else lines


def _in_pairs(
    lines: bytes,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.uint8]]:
    r"""Look at lines byte by byte, and at each two bytes that follow one another.

    Returns:
        characters, ends: (n + 1,) the bytes behind a \n, and which of them are \n; at_end, larger: (n,)
        of which two one alone is \n, and the larger of the two, which then is the other unless that is
        white space.
    """
    characters = np.frombuffer(b"\n" + lines, np.uint8)
    ends = line_ends(characters)
    larger = np.maximum(characters[1:], characters[:-1])
    return characters, ends, ends[1:] != ends[:-1], larger


def _without_margins(characters: NDArray[np.uint8], ends: NDArray[np.intp]) -> bytes | None:
    """Return lines without white space of ASCII next to their ends; None where there is much of it."""
    keep = np.ones(len(characters), np.bool_)
    keep[0] = False
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


def _has_wide_margins(lines: bytes) -> bool:
    """Return whether a line begins or ends with white space that is not ASCII."""
    characters, ends, at_end, larger = _in_pairs(lines)
    near = at_end & (larger >= _ASCII)
    if not near.any():  # far quicker than finding that there are no places
        return False
    places = np.flatnonzero(near)
    first, last = places[ends[places]] + 1, places[~ends[places]]

    def numbers(places: NDArray[np.intp], count: int) -> NDArray[np.int64]:
        """Return as many bytes from places on as a number each."""
        found = np.zeros(len(places), np.int64)
        for step in range(count):
            found = found << 8 | characters[places + step]
        return found

    margins = (numbers(first, 2), numbers(first, 3), numbers(last - 1, 2), numbers(last - 2, 3))
    return bool((np.concatenate(margins)[:, None] == _WIDE_NUMBERS).any())


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
