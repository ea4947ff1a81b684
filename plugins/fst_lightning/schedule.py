"""The learning rate's schedule."""

from __future__ import annotations

import math

__all__ = ["Schedule"]


class Schedule:
    """A linear warm-up, then cosines with hard restarts: a pure function of the step and of `total`.

    With a floor of 0 it is `get_cosine_with_hard_restarts_schedule_with_warmup` of transformers;
    the restarts are those of SGDR (Loshchilov & Hutter 2017). While the total is not known yet, the
    rate rises as it does in the longest training.

    Args:
        total: the number of steps; None until it is known.
        warmup: the steps of the warm-up; by default `longest_warmup`, at most a tenth of all.
        cycles: the number of cosines.
        floor: where each ends, as a share of the learning rate.
        longest_warmup: see `warmup`.
    """

    def __init__(
        self,
        total: int | None,
        warmup: int | None,
        cycles: int = 1,
        floor: float = 0.0,
        longest_warmup: int = 40,
    ) -> None:
        self.total = total
        self.cycles = cycles
        self.floor = floor
        self._warmup = warmup
        self._longest_warmup = longest_warmup

    @property
    def warmup(self) -> int:
        """The steps in which the rate rises."""
        if self._warmup is not None:
            return self._warmup
        if self.total is None:
            return self._longest_warmup
        return min(self._longest_warmup, self.total // 10)

    def __call__(self, step: int) -> float:
        """Return the share of the learning rate that holds after `step` steps, in [0, 1]."""
        if step < self.warmup:
            return step / self.warmup
        if self.total is None:
            return 1.0
        progress = (step - self.warmup) / max(1, self.total - self.warmup)
        if progress >= 1:
            return self.floor
        cosine = 0.5 * (1 + math.cos(math.pi * (self.cycles * progress % 1)))
        return self.floor + (1 - self.floor) * cosine
