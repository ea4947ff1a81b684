r"""The lines of a text that comes in pieces: memory is bounded by a piece and the longest line.

A line ends at \n, and at nothing else. What comes out does not depend on the size of the pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["blocks", "count_lines", "stripped", "whole_lines"]

_WIDE_SPACES: Final = (
    "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""All that `str.strip` removes beyond ASCII."""
_NEWLINE, _SPACE = b"\n "
_IS_SPACE: Final = np.array([chr(i).isspace() and i < 128 and i != _NEWLINE for i in range(256)])
_WIDEST: Final = 64
"""Characters of a margin; a wider one is removed line by line."""
_FEW: Final = 8
"""Where one of so many lines has a margin, all are stripped one by one."""
_FIRST: Final = 4096
"""Characters by which the others are judged first."""


def whole_lines(pieces: Iterable[str]) -> Iterator[str]:
    r"""Yield a text, many whole lines at a time, each ended by \n, the last one too."""
    begun: list[str] = []  # the pieces of a line whose end has not come yet
    for text in pieces:
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
    from few of them.
    """
    first = lines[:_FIRST]
    if (
        first.count("\n ") * _FEW <= first.count("\n")
        and (kept := _stripped_at_once(lines)) is not None
    ):
        return kept
    return "\n".join(map(str.strip, lines.split("\n")))


def _stripped_at_once(lines: str) -> str | None:
    """Return what `stripped` does; None where it is quicker line by line."""
    characters = np.frombuffer(b"\n" + lines.encode(), np.uint8)
    ends = characters == _NEWLINE
    low = (characters <= _SPACE) & ~ends
    margins = np.count_nonzero(ends[:-1] & low[1:]) + np.count_nonzero(ends[1:] & low[:-1])
    if margins * _FEW > np.count_nonzero(ends) or _has_wide_spaces(lines):
        return None
    if not margins:
        return lines
    kept = _without_margins(characters, np.flatnonzero(ends))
    return None if kept is None else kept[1:].tobytes().decode()


def _has_wide_spaces(lines: str) -> bool:
    return not lines.isascii() and any(space in lines for space in _WIDE_SPACES)


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


def count_lines(text: str) -> int:
    r"""Return how often \n is in a text: `str.count` looks at one character after the other."""
    return int(np.count_nonzero(np.frombuffer(text.encode(), np.uint8) == _NEWLINE))


def blocks(pieces: Iterable[str]) -> Iterator[list[str]]:
    """Yield a text's lines, without their ends, many at a time."""
    begun: list[str] = []  # the pieces of a line whose end has not come yet
    for text in pieces:
        first, *lines = text.split("\n")
        begun.append(first)
        if lines:
            ended = "".join(begun)
            begun = [lines.pop()]
            yield [ended, *lines]
    if last := "".join(begun):
        yield [last]
