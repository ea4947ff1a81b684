"""What a person sees of training: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
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
from rich.table import Column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_lightning.checkpoints import State

__all__ = ["Display", "Pace", "Silent", "display", "sampled", "validated"]

EVERY = 10.0
"""Seconds from one line to the next, and from one validation that is told to the next."""
SHOWN = 200
"""Characters of a sample that are shown."""
LEAST = len("training") + 8 + len("100:00:00") + 4
"""Columns of a bar beside steps and figures: its name, itself, the time left, and what is between."""


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
    """Return the display for stderr as it is; training goes from a state to a number of steps.

    The environment's TTY_INTERACTIVE=0 says that a terminal is to have lines too.
    """
    bar = sys.stderr.isatty() and os.environ.get("TTY_INTERACTIVE") != "0"
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
    """Return a line about a generated text: the prompt, a bar, and what the model wrote."""
    line = f"{_plain(prompt)} | {_plain(text)}".strip()
    return f"  {line[:SHOWN]}{'...' if len(line) > SHOWN else ''}"


def _plain(text: str) -> str:
    """Return a text on one line, its control characters written out: a model may write any."""
    spaced = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in spaced)


class Pace:
    """Tells of validations, which are many where there is little data: of the first, then now and then.

    The last one is told at the end in any case.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._told: float | None = None
        self._rest: list[str] = []

    def say(self, lines: list[str]) -> None:
        """Show the lines of a validation, or keep them while the last ones are new."""
        self._rest = lines
        if self._told is None or time.monotonic() - self._told >= EVERY:
            self.finish()

    def finish(self) -> None:
        """Show what is kept."""
        for line in self._rest:
            self._display.say(line)
        self._told, self._rest = time.monotonic(), []


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
    """A progress bar; where it is narrow, it leaves out figures, and never steps or the time left."""

    def __init__(self, state: State, total: int | None) -> None:
        self._total = total
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            expand=True,
        )
        self._task = self._progress.add_task(
            "training", total=total, completed=state.step, figures=""
        )
        self._progress.start()

    def step(self, state: State, tokens_per_second: float) -> None:
        """Move the bar."""
        steps = 2 * len(str(self._total or state.step)) + 1
        room = self._progress.console.width - steps - LEAST
        parts = _figures(state, tokens_per_second)
        while parts and len(", ".join(parts)) > room:
            parts.pop()
        self._progress.update(self._task, completed=state.step, figures=", ".join(parts))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def expect(self, total: int) -> None:
        """Take note of the number of steps."""
        self._total = total
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
            figures = ", ".join(_figures(state, tokens_per_second))
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


def _figures(state: State, tokens_per_second: float) -> list[str]:
    """Return what is told of a step, the most important first."""
    parts = [] if state.loss is None else [f"loss {state.loss:.4f}"]
    if state.valid_loss is not None:
        parts.append(f"validation loss {state.valid_loss:.4f}")
    parts.append(f"{tokens_per_second:,.0f} tokens/s")
    return parts


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
