"""A trial: the first steps of a training, which are timed and thrown away."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fst_core.errors import FstError
from fst_core.pipeline.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Ended", "Pace", "Report", "Trial", "seen_once", "steady"]

_WARM: Final = 2
"""Steps at the beginning that are not measured: memory is taken in them."""
_STEPS: Final = 8
"""The fewest steps that are measured."""
_PATIENCE: Final = 3
"""So many times the wanted seconds are spent at the most."""


@dataclass(frozen=True, slots=True)
class Report:
    """When a trainer reported what."""

    time: float
    step: int
    metrics: Mapping[str, float]

    @property
    def is_validation(self) -> bool:
        """Whether it is of a validation."""
        return "valid_loss" in self.metrics


class Ended(BaseException):
    """Enough is seen; no trainer takes this for an error of its own."""


class Pace(NamedTuple):
    """Steps, the seconds that they took, and the ids that they trained on (0: not reported)."""

    steps: int
    seconds: float
    tokens: float

    @property
    def step(self) -> float:
        """The seconds of a step."""
        return self.seconds / self.steps


@dataclass(frozen=True, slots=True)
class Trial(Run):
    """A run that observers hear nothing of, and that ends when enough is seen."""

    is_enough: Callable[[Sequence[Report]], bool]
    begun: float
    reports: list[Report] = field(default_factory=list)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the time.

        Raises:
            Ended: enough is seen.
        """
        self.reports.append(Report(time.perf_counter(), step, dict(metrics)))
        if self.is_enough(self.reports):
            raise Ended

    def tell(self, hook: str, **arguments: Any) -> None:
        """Tell nobody."""

    def pace(self) -> Pace:
        """Return how fast the steps were, those with a validation before or after them left out.

        Raises:
            FstError: the trainer reported nothing.
        """
        if not self.reports:
            raise FstError("the trainer reported no step that could be measured")
        steps, seconds, tokens = 0, 0.0, 0.0
        for one, next_one in pairwise(self.reports[_WARM - 1 :]):
            if next_one.step > one.step and not (one.is_validation or next_one.is_validation):
                took = next_one.time - one.time
                steps += next_one.step - one.step
                seconds += took
                tokens += took * next_one.metrics.get("tokens_per_second", 0.0)
        if not steps:  # it ended before: what there is has to do
            last = self.reports[-1]
            return Pace(max(last.step, 1), last.time - self.begun, 0.0)
        return Pace(steps, seconds, tokens)

    def start(self, step: float) -> float:
        """Return the seconds before the first step, where a step takes so many."""
        if not self.reports:
            return 0.0
        first = self.reports[0]
        return max(0.0, first.time - self.begun - first.step * step)

    def validation(self, step: float) -> tuple[float, float]:
        """Return the seconds of the first validation, and those of what comes with it: texts, a checkpoint."""
        for before, own, after in zip(
            self.reports, self.reports[1:], self.reports[2:], strict=False
        ):
            if own.is_validation:
                rest = after.time - own.time - (after.step - own.step) * step
                return own.time - before.time, max(0.0, rest)
        return 0.0, 0.0


def steady(seconds: float) -> Callable[[Sequence[Report]], bool]:
    """Return whether steps have been measured for about some seconds."""

    def is_enough(reports: Sequence[Report]) -> bool:
        warm, last = reports[min(_WARM, len(reports)) - 1], reports[-1]
        measured, elapsed = last.step - warm.step, last.time - warm.time
        return (measured >= _STEPS and elapsed >= seconds) or elapsed >= _PATIENCE * seconds

    return is_enough


def seen_once(reports: Sequence[Report]) -> bool:
    """Return whether a step has followed the first, and with it what may come in between."""
    return reports[-1].step > reports[0].step and not reports[-1].is_validation
