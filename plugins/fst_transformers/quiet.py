"""Quiet: `transformers` without progress bars and advice on the terminal."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from transformers.utils import logging as messages

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what `transformers` prints inside the block; errors are raised as ever."""
    verbosity, bars = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity(logging.ERROR)
    if bars:
        messages.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it unannotated
    try:
        yield
    finally:
        messages.set_verbosity(verbosity)
        if bars:
            messages.enable_progress_bar()  # type: ignore[no-untyped-call]  # transformers left it unannotated
