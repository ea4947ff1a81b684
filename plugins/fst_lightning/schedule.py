"""The learning rate's schedule."""

from __future__ import annotations

import math

__all__ = ["Schedule"]


class Schedule:
    """A linear warm-up, then cosines with hard restarts: a pure function of the step and of what `expect` said.

    With a floor of 0 it is `get_cosine_with_hard_restarts_schedule_with_warmup` of transformers;
    the restarts are those of SGDR (Loshchilov & Hutter 2017). While the number of steps is not known
    yet, the rate rises as it does in the longest training, and stays.

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
        self.cycles = cycles
        self.floor = floor
        self._warmup = warmup
        self._longest_warmup = longest_warmup
        self._turns: list[tuple[int, float, int]] = []  # after which step, how far, to which end
        if total is not None:
            self.expect(total)

    @property
    def total(self) -> int | None:
        """The number of steps, as far as it is known."""
        return self._turns[-1][-1] if self._turns else None

    @property
    def warmup(self) -> int:
        """The steps in which the rate rises."""
        if self._warmup is not None:
            return self._warmup
        if not self._turns:
            return self._longest_warmup
        return min(self._longest_warmup, self._turns[0][-1] // 10)

    def expect(self, total: int, after: int = -1) -> None:
        """Take note of the number of steps, found out after one of them; what was before stays.

        The rest of the way is spread over the rest of the steps, so that the rate never jumps but
        where its warm-up gets shorter.
        """
        self._turns.append((after, self._progress(after), total))

    def __call__(self, step: int) -> float:
        """Return the share of the learning rate that holds after `step` steps, in [0, 1]."""
        known = bool(self._turns) and step > self._turns[0][0]
        warmup = self.warmup if known or self._warmup is not None else self._longest_warmup
        if step < warmup:
            return step / warmup
        if not known:
            return 1.0
        progress = self._progress(step)
        if progress >= 1:
            return self.floor
        cosine = 0.5 * (1 + math.cos(math.pi * (self.cycles * progress % 1)))
        return self.floor + (1 - self.floor) * cosine

    def _progress(self, step: int) -> float:
        """Return which share of the way from the warm-up to the end is done after `step` steps."""
        turns = [turn for turn in self._turns if turn[0] < step]
        if not turns:
            return 0.0
        after, before, total = turns[-1]
        start = max(after, self.warmup)
        return before + (1 - before) * max(0, step - start) / max(1, total - start)
