"""The learning rate's schedule."""

from __future__ import annotations

import math

__all__ = ["Schedule"]


class Schedule:
    """A linear warm-up, then cosines with hard restarts: a pure function of the step.

    With a floor of 0 it is `get_cosine_with_hard_restarts_schedule_with_warmup` of transformers;
    the restarts are those of SGDR (Loshchilov & Hutter 2017).
    """

    def __init__(self, total: int, warmup: int | None, cycles: int = 1, floor: float = 0.0) -> None:
        self.total = total
        self.warmup = min(100, total // 10) if warmup is None else warmup
        self.cycles = cycles
        self.floor = floor

    def __call__(self, step: int) -> float:
        """Return the share of the learning rate that holds after `step` steps, in [0, 1]."""
        if step < self.warmup:
            return step / self.warmup
        progress = (step - self.warmup) / max(1, self.total - self.warmup)
        if progress >= 1:
            return self.floor
        cosine = 0.5 * (1 + math.cos(math.pi * (self.cycles * progress % 1)))
        return self.floor + (1 - self.floor) * cosine
