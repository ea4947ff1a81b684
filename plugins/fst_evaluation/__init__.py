"""Evaluators: how well a model predicts the text that was held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_evaluators() -> Iterator[Component]:
    """Offer the evaluator."""
    yield Component(
        "perplexity",
        f"{__name__}.perplexity:PerplexityEvaluator",
        "Loss, perplexity and bits per byte on the held-out documents.",
        settings=f"{__name__}.settings:PerplexitySettings",
        needs=("torch",),
    )
