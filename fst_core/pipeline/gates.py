"""Gates: bounds of figures below which, or above which, a model is not served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fst_core.settings import Settings

__all__ = ["unmet"]

_WORDS = {"max": "more", "min": "less"}


def unmet(
    settings: Settings | None, figures: Mapping[str, float | None], evaluator: str
) -> list[str]:
    """Return a line for each bound in an evaluator's settings that its figures do not meet.

    A setting `max_<figure>` or `min_<figure>` bounds that figure, and a table `max` or `min` the
    figures that it names. One that is not known, NaN as well, meets no bound.
    """
    lines = []
    for key, limit, figure, bound in _bounds(settings, figures):
        value = figures.get(figure)
        what = figure if figure == evaluator else f"{figure} of {evaluator}"
        if value is None:
            lines.append(f"{what} is not known, and {key} = {bound:g}")
        elif not (value <= bound if limit == "max" else value >= bound):  # NaN is neither
            lines.append(f"{what} is {value:.5g}, {_WORDS[limit]} than {key} = {bound:g}")
    return lines


def _bounds(
    settings: Settings | None, figures: Mapping[str, float | None]
) -> Iterator[tuple[str, str, str, float]]:
    """Yield each bound: its key, max or min, the figure, the number."""
    for key, value in _fields(settings):
        limit, _, figure = key.partition("_")
        if limit not in _WORDS or value is None:
            continue
        if isinstance(value, dict) and not figure:
            yield from ((f"{key}.{name}", limit, name, bound) for name, bound in value.items())
        elif figure in figures:
            yield key, limit, figure, value


def _fields(settings: Settings | None) -> Iterator[tuple[str, Any]]:
    for key in () if settings is None else type(settings).model_fields:
        yield key, getattr(settings, key)
