"""The log: lines of JSON on the error stream, without texts of requests."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fst_core.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["logging_to_stderr"]


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Write what this server and uvicorn log, as long as it serves."""
    levels = {"fst_fastapi": logging.INFO, "uvicorn.error": logging.WARNING}
    loggers = [logging.getLogger(name) for name in levels]
    if any(isinstance(each.formatter, JsonLines) for each in loggers[0].handlers):
        yield  # another server of this process does it
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for logger, level in zip(loggers, levels.values(), strict=True):
        logger.setLevel(level)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class JsonLines(logging.Formatter):
    """Writes a record as one line of JSON, in which nothing can forge another."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage()[:300],
            **getattr(record, "said", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            said["failure"] = f"{type(error).__name__}: {one_line(error)}"
        return json.dumps(said)
