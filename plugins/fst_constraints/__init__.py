"""Constraints: texts that a JSON schema or a regular expression allows, by llguidance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_samplers() -> Iterator[Component]:
    """Offer the sampler."""
    yield Component(
        "constraint",
        f"{__name__}.constraint:ConstraintSampler",
        "Writes what a JSON schema or a regular expression allows, and nothing else.",
        settings=f"{__name__}.settings:ConstraintSettings",
        needs=("torch", "llguidance"),
    )
