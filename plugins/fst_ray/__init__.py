"""The executor of a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_executors() -> Iterator[Component]:
    """Offer the executor."""
    yield Component(
        "ray",
        f"{__name__}.ray:RayExecutor",
        "A Ray cluster, or one that is started here.",
        settings=f"{__name__}.settings:RaySettings",
        needs=("ray",),
    )
