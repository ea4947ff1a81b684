"""What a split looks like in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fst_core.dataset.samples import Samples

__all__ = ["LengthBin", "length_bins", "spread"]


@dataclass(frozen=True, slots=True)
class LengthBin:
    """How many samples have a length from `shortest` to `longest` ids, both included."""

    shortest: int
    longest: int
    samples: int


def length_bins(samples: Samples, max_length: int) -> list[LengthBin]:
    """Return a histogram of the samples' lengths by powers of two; the longest have a bin of their own."""
    edges = [2**power for power in range(max_length.bit_length()) if 2**power < max_length]
    edges += [max_length, max_length + 1]
    counts, _ = np.histogram(samples.lengths(), bins=edges)
    bins = [
        LengthBin(low, high - 1, count)
        for low, high, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True)
    ]
    while bins and not bins[0].samples:
        del bins[0]
    return bins


def spread(samples: Samples, count: int) -> list[int]:
    """Return the indices of at most `count` samples, evenly spread from the first to the last."""
    return sorted(
        set(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int).tolist())
    )
