"""What a pipeline may write in `[dataset.executor]` for `local`."""

from __future__ import annotations

from pydantic import Field

from fst_core import Settings

__all__ = ["LocalSettings"]


class LocalSettings(Settings):
    """Settings of the executor `local`."""

    workers: int = Field(0, ge=0)
    """How many processes; 0: as many as this machine has cores."""
