"""The engine `local`: continuous batching over a module in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_engines() -> Iterator[Component]:
    """Offer the engine."""
    yield Component(
        "local",
        f"{__name__}.local:LocalEngine",
        "Many requests at once over a model in this process, each with its own parameters.",
        settings=f"{__name__}.settings:LocalSettings",
        needs=("torch",),
    )
