"""Memory that was freed, and that the C library keeps all the same."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["give_back_freed"]


def give_back_freed() -> None:
    """Let the GNU C library return what it keeps of many small parts that were freed; others do nothing."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
