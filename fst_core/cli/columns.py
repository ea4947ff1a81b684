"""Columns of text that fit a terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["columns"]


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield a line for each row, its cells aligned; on a terminal the last cell is cut to fit."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)][:-1]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line = "  ".join([*cells, row[-1]]).rstrip()
        yield line if room is None or len(line) <= room else line[: max(room - 3, 0)] + "..."
