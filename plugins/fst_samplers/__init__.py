"""Samplers: the likeliest id, and the usual parameters of drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_samplers() -> Iterator[Component]:
    """Offer the samplers."""
    yield Component(
        "greedy",
        f"{__name__}.greedy:GreedySampler",
        "Always the likeliest id.",
        needs=("torch",),
    )
    yield Component(
        "standard",
        f"{__name__}.standard:StandardSampler",
        "Temperature, top-k, top-p, min-p, typical-p, penalties, biases and ignored words.",
        settings=f"{__name__}.settings:StandardSettings",
        needs=("torch",),
    )
