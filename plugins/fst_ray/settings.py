"""What a pipeline may write in `[dataset.executor]` for `ray`."""

from __future__ import annotations

from pydantic import Field

from fst_core import Settings

__all__ = ["RaySettings"]


class RaySettings(Settings):
    """Settings of the executor `ray`."""

    address: str | None = None
    """The cluster, as `auto` or `ray://host:10001`; by default one is started on this machine."""
    workers: int = Field(0, ge=0)
    """How many cores a cluster started here has; 0: all of them."""
    cpus: float = Field(1.0, gt=0)
    """How many cores of the cluster an item takes."""
