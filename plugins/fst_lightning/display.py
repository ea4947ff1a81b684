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
    from fst_lightning.checkpoints import State

__all__ = ["Display", "display"]

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

    def close(self) -> None:
        """Leave the terminal as it was."""


def display(state: State, total: int) -> Display:
    """Return the display for stderr as it is; training goes from a state to a number of steps."""
    bar = sys.stderr.isatty()
    return Bar(state, total) if bar else Lines(state, total)


def validated(state: State, perplexity: float) -> str:
    """Return a line about a validation."""
    best = ", the best so far" if state.best_step == state.step else ""
    return (
        f"step {state.step}: validation loss {state.valid_loss:.4f}, "
        f"perplexity {perplexity:.2f}{best}"
    )


def sampled(prompt: str, text: str) -> str:
    """Return a line about a generated text."""
    line = " ".join((prompt + text).split())
    return f"  {line[:SHOWN]}{'...' if len(line) > SHOWN else ''}"


class Bar:
    """A progress bar."""

    def __init__(self, state: State, total: int) -> None:
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

    def close(self) -> None:
        """Draw the bar a last time."""
        self._progress.stop()


class Lines:
    """A line now and then."""

    def __init__(self, state: State, total: int) -> None:
        self._console = Console(stderr=True)
        self._total = total
        self._first = state.step
        self._begun = self._told = time.monotonic()

    def step(self, state: State, tokens_per_second: float) -> None:
        """Print a line if the last one is old."""
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            left = (now - self._begun) / (state.step - self._first) * (self._total - state.step)
            figures = _figures(state, tokens_per_second)
            self.say(f"step {state.step}/{self._total}: {figures}, {_duration(left)} left")

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

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
