"""What a person sees of training: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_lightning.checkpoints import State

__all__ = ["Display", "Silent", "display", "sampled", "validated"]

EVERY = 10.0
"""Seconds from one line to the next."""
SHOWN = 200
"""Characters of a sample that are shown."""


class Display(Protocol):
    """Shows how training goes."""

    def step(self, state: State, tokens_per_second: float) -> None:
        """Show a completed step."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def expect(self, total: int) -> None:
        """Take note of the number of steps."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def display(state: State, total: int | None) -> Display:
    """Return the display for stderr as it is; training goes from a state to a number of steps."""
    bar = sys.stderr.isatty()
    return Bar(state, total) if bar else Lines(state, total)


def validated(state: State, figures: Mapping[str, float]) -> str:
    """Return a line about a validation."""
    best = ", the best so far" if state.best_step == state.step else ""
    bits = figures.get("bits_per_byte")
    return (
        f"step {state.step}: validation loss {figures['valid_loss']:.4f}, "
        f"perplexity {figures['perplexity']:.2f}"
        f"{'' if bits is None else f', {bits:.3f} bits per byte'}{best}"
    )


def sampled(prompt: str, text: str) -> str:
    """Return a line about a generated text."""
    line = " ".join((prompt + text).split())
    return f"  {line[:SHOWN]}{'...' if len(line) > SHOWN else ''}"


class Silent:
    """Shows nothing: another process does."""

    def step(self, state: State, tokens_per_second: float) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""

    def expect(self, total: int) -> None:
        """Show nothing."""

    def close(self) -> None:
        """There is nothing to leave."""


class Bar:
    """A progress bar."""

    def __init__(self, state: State, total: int | None) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(
            "training", total=total, completed=state.step, figures=""
        )
        self._progress.start()

    def step(self, state: State, tokens_per_second: float) -> None:
        """Move the bar."""
        figures = _figures(state, tokens_per_second)
        self._progress.update(self._task, completed=state.step, figures=figures)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def expect(self, total: int) -> None:
        """Take note of the number of steps."""
        self._progress.update(self._task, total=total)

    def close(self) -> None:
        """Draw the bar a last time."""
        self._progress.stop()


class Lines:
    """A line now and then."""

    def __init__(self, state: State, total: int | None) -> None:
        self._console = Console(stderr=True)
        self._total = total
        self._first = state.step
        self._begun = self._told = time.monotonic()

    def step(self, state: State, tokens_per_second: float) -> None:
        """Print a line if the last one is old."""
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            figures = _figures(state, tokens_per_second)
            of, left = "", ""
            if self._total is not None:
                each = (now - self._begun) / (state.step - self._first)
                of = f"/{self._total}"
                left = f", {_duration(each * (self._total - state.step))} left"
            self.say(f"step {state.step}{of}: {figures}{left}")

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def expect(self, total: int) -> None:
        """Take note of the number of steps."""
        self._total = total

    def close(self) -> None:
        """There is nothing to leave."""


def _figures(state: State, tokens_per_second: float) -> str:
    parts = [f"loss {state.loss:.4f}"]
    if state.valid_loss is not None:
        parts.append(f"validation loss {state.valid_loss:.4f}")
    parts.append(f"{tokens_per_second:,.0f} tokens/s")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
