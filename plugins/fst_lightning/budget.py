"""`minutes`: how many steps fit into a time, found out from the first ones."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Budget", "Corpus"]

_WARM = 2
"""Steps that are not measured: the first ones are slow."""
_FEWEST = 3
"""Steps that are measured at least."""
_SHARE = 0.05
_LONGEST = 10.0
"""How long to measure: this share of the time, at most so many seconds."""


class Corpus(NamedTuple):
    """What a step is made of on average."""

    tokens_per_step: float
    valid_tokens: int
    """Ids of a validation; 0 where there is none."""
    steps_per_validation: float


class Budget:
    """Fixes the number of steps that fit into some minutes.

    A step costs by its ids, and a validation by a third of that, since it goes through the module
    once and not back. Samples and checkpoints are not counted.
    """

    def __init__(self, minutes: float, corpus: Corpus) -> None:
        self._seconds = minutes * 60
        self._corpus = corpus
        self._first: tuple[int, float, int] | None = None  # step, seconds, tokens where it began

    def total(self, step: int, seconds: float, tokens: int) -> int | None:
        """Return the number of all steps, if enough of them have been measured; else None.

        Args:
            step: steps that are done.
            seconds: the time that they took.
            tokens: ids that they had, without padding.
        """
        if self._first is None:
            if step >= _WARM:
                self._first = (step, seconds, tokens)
            return None
        first, since, before = self._first
        enough = min(self._seconds * _SHARE, _LONGEST)
        if step - first < _FEWEST or (seconds < enough):
            return None
        per_token = (seconds - since) / max(1, tokens - before)
        per_step = per_token * self._corpus.tokens_per_step
        validation = per_token * self._corpus.valid_tokens / 3
        left = self._seconds - seconds - validation  # the one at the end
        return step + max(
            1, round(left / (per_step + validation / self._corpus.steps_per_validation))
        )
