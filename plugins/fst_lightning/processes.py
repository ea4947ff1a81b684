"""The processes that Lightning starts to train together, ended when training ends, however it does."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytorch_lightning as pl

__all__ = ["ending_with"]

_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What Lightning sets for them, in its own process too."""
_PATIENCE = 30.0
_AFTER_AN_ERROR = 2.0
"""Seconds that they may take to end by themselves."""


@contextmanager
def ending_with(trainer: pl.Trainer) -> Iterator[None]:
    """Wait at the end for the processes that a trainer has started; after an error, kill what stays."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    launcher = trainer.strategy.launcher
    patience = _AFTER_AN_ERROR
    try:
        yield
        patience = _PATIENCE
    finally:
        if isinstance(launcher, _SubprocessScriptLauncher):
            for process in launcher.procs:
                try:
                    process.wait(patience)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            launcher.procs.clear()  # else Lightning kills this process for the death of another
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
