"""The lines of WhatsApp's exports, which differ between systems, languages and their dates.

iOS writes `[31.12.20, 23:59:59] Name: text`, Android `12/31/20, 11:59 PM - Name: text`; what follows
a line without such a beginning belongs to the message before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Entry", "entries", "moments"]

_MARKS: Final = "\u200e\u200f\u202a-\u202e\u2066-\u2069"
_DIRECTIONS: Final = re.compile(f"[{_MARKS}]")
"""Marks of the direction of writing, which stand around dates and names."""
_BEFORE: Final = "오전|오후|上午|下午|午前|午後"
_AFTER: Final = r"[AaPp]\.?\s?[Mm]\.?|ص|م"
_HEAD: Final = re.compile(
    rf"""
    [{_MARKS}]* \[? [{_MARKS}]*
    (\d{{1,4}}) [\s{_MARKS}]{{0,2}} [./-] [\s{_MARKS}]{{0,2}}
    (\d{{1,2}}) [\s{_MARKS}]{{0,2}} [./-] [\s{_MARKS}]{{0,2}}
    (\d{{1,4}}) \.? [{_MARKS}]*                                       # a date
    [,،]? \s (?: ({_BEFORE}) \s? | \D{{1,4}} \s )?                  # maybe a word such as "at"
    (\d{{1,2}}) [:.] (\d{{2}}) (?: [:.] (\d{{2}}) )?                 # a time
    (?: \s? ({_AFTER}) )?
    (?: \]\s? | \s-\s )
    """,
    re.VERBOSE,
)
_LATE: Final = ("p", "오후", "下午", "午後", "م")
"""How half-days after noon begin."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message, or what the program says."""

    line: int
    """The number of the line where it begins."""
    date: tuple[int, int, int]
    """Its numbers, in the order in which they stand."""
    seconds: int
    """Since midnight."""
    twelve: bool
    """Whether the clock has two half-days."""
    author: str
    """Who wrote it; "" for what the program says."""
    text: str


def entries(text: str) -> Iterator[Entry]:
    r"""Yield the entries of an export whose lines end in \n."""
    head: re.Match[str] | None = None
    begun, lines = 0, [""]
    for number, line in enumerate(text.split("\n"), 1):
        found = _HEAD.match(line)
        if found:
            if head:
                yield _entry(head, begun, lines)
            head, begun, lines = found, number, [line[found.end() :]]
        else:
            lines.append(line)
    if head:
        yield _entry(head, begun, lines)


def _entry(head: re.Match[str], line: int, lines: list[str]) -> Entry:
    first, second, third, before, hour, minute, second_, after = head.groups()
    half = (before or after or "").lower()
    hours = int(hour)
    if half:
        hours = hours % 12 + 12 * half.startswith(_LATE)
    author, found, text = lines[0].partition(": ")
    if not found and lines[0].endswith(":"):
        author, found = lines[0][:-1], ":"
    return Entry(
        line,
        (int(first), int(second), int(third)),
        hours * 3600 + int(minute) * 60 + int(second_ or 0),
        bool(half),
        _DIRECTIONS.sub("", author).removeprefix("~").strip() if found else "",
        "\n".join([text if found else lines[0], *lines[1:]]).rstrip("\n"),
    )


def moments(found: Sequence[Entry], first: str) -> Iterator[float]:
    """Yield when each entry was written, in seconds since any moment.

    Args:
        found: the entries of one file.
        first: which number of a date comes first: "day", "month", "year", or "auto".
    """
    order = _ORDERS[_first(found) if first == "auto" else first]
    before = 0.0
    for entry in found:
        year, month, day = (entry.date[place] for place in order)
        try:
            date = datetime(year + 2000 * (year < 100), month, day)
        except ValueError:
            yield before  # no date of this order: what a person wrote looks like a head
            continue
        before = (date - datetime(2000, 1, 1)).total_seconds() + entry.seconds
        yield before


_ORDERS: Final = {"day": (2, 1, 0), "month": (2, 0, 1), "year": (0, 1, 2)}
"""Where year, month and day stand, by what comes first."""


def _first(found: Sequence[Entry]) -> str:
    """Return what comes first in the dates of a file: the order in which no date is wrong, and time goes on."""

    def wrong(order: str) -> tuple[int, int]:
        dates = [tuple(e.date[place] for place in _ORDERS[order]) for e in found]
        impossible = sum(
            not (1 <= month <= 12 and 1 <= day <= 31 and (year < 100 or 2000 <= year < 2100))
            for year, month, day in dates
        )
        return impossible, sum(after < before for before, after in pairwise(dates))

    likely = ("month", "day", "year") if found[0].twelve else ("day", "month", "year")
    return min(likely, key=wrong)
