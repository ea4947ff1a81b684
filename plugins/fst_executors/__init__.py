"""Executors that need nothing: the processes of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_executors() -> Iterator[Component]:
    """Offer the executor."""
    yield Component(
        "local",
        f"{__name__}.local:LocalExecutor",
        "Processes of this machine.",
        settings=f"{__name__}.settings:LocalSettings",
    )
