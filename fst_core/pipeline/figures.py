"""Figures: what trainers and evaluators measured, as they are kept and shown."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["finite", "shown", "shown_value"]


def finite(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the figures for JSON, which knows no infinity: None in place of what is not finite."""
    return {
        name: None if value is None or not math.isfinite(value) else float(value)
        for name, value in figures.items()
    }


def shown(figures: Mapping[str, float | None]) -> str:
    """Return the figures as a line for people; n/a where one has no meaning."""
    return ", ".join(
        f"{name.replace('_', ' ')} {shown_value(value)}" for name, value in figures.items()
    )


def shown_value(value: float | None) -> str:
    """Return one figure for people."""
    if value is None:
        return "n/a"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.5g}"
