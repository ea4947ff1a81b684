"""`minutes`: how many steps fit into a time, found out from the first ones and corrected until the end."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple

from fst_core.artefacts.publish import write_whole

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Budget", "Corpus"]

_WARM = 2
"""Steps of a process that are not measured: the first ones are slow."""
_FEWEST = 3
"""Steps that are measured at least."""
_SHARE = 0.05
_LONGEST = 10.0
"""How long to measure at first: this share of the time, at most so many seconds."""


class Corpus(NamedTuple):
    """What a step is made of on average."""

    tokens_per_step: float
    valid_tokens: int
    """Ids of a validation; 0 where there is none."""
    steps_per_validation: float


class _Reading(NamedTuple):
    step: int
    busy: float
    """Seconds without validations."""
    tokens: int


class Budget:
    """Finds the number of steps that fit into some minutes, validations and samples among them.

    It does so anew each time that half of the steps or of the time that were left are over, from
    the steps since the last time, so that the first ones, which are slow, decide nothing for long.
    A file keeps each number with the step after which it was found: a run that goes on from an
    earlier step takes the same ones at the same steps.

    Args:
        minutes: the time.
        corpus: what a step costs by, until a validation has been seen: by its ids, and a validation
            by a third of that, since it goes through the module once and not back.
        file: where the numbers are kept; those of other minutes do not count.
    """

    def __init__(self, minutes: float, corpus: Corpus, file: Path) -> None:
        self._minutes = minutes
        self._corpus = corpus
        self._file = file
        self.totals = self._read()
        """Numbers of all steps, by the step after which they were found."""
        self._calls = 0
        self._since: _Reading | None = None
        self._found_at: tuple[int, int, float] | None = None  # the step, the total, the seconds
        self._validations = 0
        self._validating = 0.0

    def before(self, step: int) -> list[tuple[int, int]]:
        """Return what was found up to a step: the step after which it was, and the number of all."""
        return [(after, total) for after, total in sorted(self.totals.items()) if after <= step]

    def validated(self, seconds: float) -> None:
        """Take note of a validation, with its samples."""
        self._validations += 1
        self._validating += seconds

    def total(self, step: int, seconds: float, tokens: int) -> int | None:
        """Return the number of all steps, if it is found anew after this one; else None.

        Args:
            step: steps that are done.
            seconds: the time since training began.
            tokens: ids that were learned from, without padding.
        """
        self._calls += 1
        now = _Reading(step, seconds - self._validating, tokens)
        if self._found_at is None and (known := self.before(step - 1)):
            self._found_at = (*known[-1], seconds)
        found = self.totals.get(step)
        if found is None and step > max(self.totals, default=0) and self._is_due(step, seconds):
            found = step + self._left(now, seconds)
            self._keep(step, found)
        if found is not None:
            self._found_at = (step, found, seconds)
        if found is not None or self._calls == _WARM:
            self._since = now
        return found

    def _is_due(self, step: int, seconds: float) -> bool:
        if self._since is None:
            return False
        if self._found_at is None:
            enough = min(self._minutes * 60 * _SHARE, _LONGEST)
            return step - self._since.step >= _FEWEST and seconds >= enough
        after, total, at = self._found_at
        half = after + math.ceil((total - after) / 2)
        return step >= half or seconds >= (at + self._minutes * 60) / 2

    def _left(self, now: _Reading, seconds: float) -> int:
        """Return how many more steps there is time for."""
        assert self._since is not None
        per_token = (now.busy - self._since.busy) / max(1, now.tokens - self._since.tokens)
        step = per_token * self._corpus.tokens_per_step
        if self._validations and self._corpus.valid_tokens:
            validation = self._validating / self._validations
        else:
            validation = per_token * self._corpus.valid_tokens / 3
        left = self._minutes * 60 - seconds - validation  # the one at the end
        each = step + validation / self._corpus.steps_per_validation
        return max(0, round(left / max(each, 1e-9)))

    def _read(self) -> dict[int, int]:
        try:
            said = json.loads(self._file.read_bytes())
            if said["minutes"] == self._minutes:
                return {int(after): int(total) for after, total in said["totals"]}
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing has been found yet
        return {}

    def _keep(self, step: int, total: int) -> None:
        self.totals[step] = total
        said = {"minutes": self._minutes, "totals": sorted(self.totals.items())}
        write_whole(self._file, f"{json.dumps(said)}\n".encode())
