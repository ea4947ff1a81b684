"""Plots: lines over steps, as SVG that every browser and code host shows."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Points", "line_plot"]

Points = list[tuple[float, float]]

_WIDTH: Final = 720
_HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 36
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_MOST: Final = 400
"""Points of a line; more are averaged, since nobody sees them."""
_TICKS: Final = 5


def line_plot(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], levels: Mapping[str, float]
) -> str:
    """Return a plot as SVG.

    Args:
        title: what is plotted.
        series: (step, value) pairs in the order of steps, by name; at least one pair.
        levels: values that are drawn as dashed lines from side to side, by name.
    """
    lines = {name: _thinned(points) for name, points in series.items() if points}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [*(y for points in lines.values() for _, y in points), *levels.values()]
    across, up = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT), _axis(ys)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
        *_grid(across, up),
        *_drawn(lines, levels, across, up),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Axis:
    """Maps values to places on the paper."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low = low
        self.high = high if high > low else low + 1
        self.start = start
        self.end = end

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return round values between the ends, about as many as fit."""
        rough = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _axis(values: Sequence[float]) -> _Axis:
    """Return the upward axis, with a little room above and below."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1
    return _Axis(
        max(low - room, 0.0) if low >= 0 else low - room, high + room, _HEIGHT - _BOTTOM, _TOP
    )


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    for value in up.ticks():
        y = up.place(value)
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#e0e0e0"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{_number(value)}</text>'
    for value in across.ticks():
        x = across.place(value)
        yield (
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_number(value)}</text>'
        )
    yield f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end" fill="#666">step</text>'


def _drawn(
    lines: Mapping[str, Points], levels: Mapping[str, float], across: _Axis, up: _Axis
) -> Iterator[str]:
    place = _WIDTH - _RIGHT
    named = [(name, _COLOURS[index % len(_COLOURS)]) for index, name in enumerate(lines)]
    legend = named if len(named) > 1 else []  # a single line is what the title says
    for name, colour in reversed(legend):
        yield f'<text x="{place}" y="20" text-anchor="end" fill="{colour}">{escape(name)}</text>'
        place -= 8 * len(name) + 16
    for name, colour in named:
        points = " ".join(f"{across.place(x)},{up.place(y)}" for x, y in lines[name])
        if len(lines[name]) == 1:
            ((x, y),) = lines[name]
            at = f'cx="{across.place(x)}" cy="{up.place(y)}"'
            yield f'<circle {at} r="3" fill="{colour}"/>'
        else:
            yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    for name, value in levels.items():
        height = up.place(value)
        yield (
            f'<line x1="{_LEFT}" y1="{height}" x2="{_WIDTH - _RIGHT}" y2="{height}" stroke="#888" '
            'stroke-dasharray="5 4"/>'
        )
        yield (
            f'<text x="{_WIDTH - _RIGHT}" y="{height - 4}" text-anchor="end" fill="#666">{escape(name)}</text>'
        )


def _thinned(points: Sequence[tuple[float, float]]) -> Points:
    """Return at most `_MOST` points, each the mean of its neighbours."""
    size = -(-len(points) // _MOST)
    groups = (points[first : first + size] for first in range(0, len(points), size))
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
