"""The report of a reading, while it goes on."""

from __future__ import annotations

from collections import Counter
from typing import Final

from fst_core.documents import ReadReport

__all__ = ["Tally"]

_MOST_PROBLEMS: Final = 100
_MOST_ENCODINGS: Final = 10_000
"""More are only counted, so that what describes a dataset stays small."""


class Tally:
    """Counts what one reading leaves out."""

    def __init__(self) -> None:
        self._dropped: Counter[str] = Counter()
        self._encodings: dict[str, str] = {}
        self._problems: list[str] = []

    def count(self, reason: str, number: int = 1) -> None:
        """Count what was left out, by a noun in the plural."""
        if number:
            self._dropped[reason] += number

    def chose(self, name: str, encoding: str) -> None:
        """Keep the encoding that was chosen for a file."""
        if len(self._encodings) < _MOST_ENCODINGS:
            self._encodings[name] = encoding

    def problem(self, line: str) -> None:
        """Keep a line on something that was left out, which begins with the place."""
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(line)

    def add(self, report: ReadReport) -> None:
        """Add the report of another reading."""
        self._dropped.update(report.dropped)
        for name, encoding in report.encodings.items():
            self.chose(name, encoding)
        for line in report.problems:
            self.problem(line)

    def report(self) -> ReadReport:
        """Return what there is so far."""
        return ReadReport(dict(self._dropped), dict(self._encodings), tuple(self._problems))
