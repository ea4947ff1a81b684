"""The log: lines on the error stream, with the ids of users and none of their words."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["logging_to_stderr"]


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write what the bot logs, as long as it serves, unless the program has a log of its own."""
    logger = logging.getLogger(__package__)
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s telegram: %(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
