"""How far a long work is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Progress", "silent"]

_BAR_AFTER: Final = 1.0
_LINE_EVERY: Final = 5.0
"""Seconds."""


def silent(line: str) -> None:
    """Tell the user nothing, which keeps a bar away too."""


class Progress:
    """Shows how many bytes of documents are done, how fast, and how long the others will take."""

    def __init__(self, tell: Callable[[str], None], total: int | None) -> None:
        self._tell = tell
        self._total = total
        self._begun = self._told = time.monotonic()
        self._bytes = self._tokens = 0
        self._bar: Any = None
        self._has_bar = tell is not silent and sys.stderr.isatty()

    def advance(self, text_bytes: int, tokens: int) -> None:
        """Count bytes of text and the tokens that they became."""
        self._bytes += text_bytes
        self._tokens += tokens
        now = time.monotonic()
        if self._has_bar:
            if self._bar is None and now - self._begun > _BAR_AFTER:
                self._bar = _open_bar(self._total)
                self._has_bar = self._bar is not None
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self._bytes, said=self._said(now))
        elif now - self._told > _LINE_EVERY:
            self._told = now
            self._tell(f"prepare: {self._said(now)}")

    def _said(self, now: float) -> str:
        seconds = max(now - self._begun, 1e-9)
        of = "" if self._total is None else f" of {self._total / 1e6:,.0f}"
        parts = [
            f"{self._bytes / 1e6:,.0f}{of} MB",
            f"{self._bytes / 1e6 / seconds:,.1f} MB/s",
            f"{self._tokens / 1e6:,.1f} million tokens",
        ]
        if self._total is not None and self._bytes:
            left = max(self._total - self._bytes, 0) / self._bytes * seconds
            parts.append(f"{int(left) // 60}:{int(left) % 60:02} left")
        return ", ".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _open_bar(total: int | None) -> Any:
    """Return a bar of the library rich on the error stream; None if it is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
    except ImportError:
        return None
    columns = (TextColumn("prepare:"), BarColumn(), TextColumn("{task.fields[said]}"))
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=total, said="")
    bar.start()
    return bar
