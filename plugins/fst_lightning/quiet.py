"""Lightning's remarks, kept away from the user; what it warns of stays."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["quiet"]

_LOGGERS = ("pytorch_lightning", "lightning_fabric", "lightning")
_KNOWN = (
    # device = "cpu" is what the user wrote
    r".*(GPU|MPS|TPU) available but not used",
    # Lightning's own use of torch
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what Lightning says to inform, and its warnings about what FST does on purpose."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _KNOWN:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
