"""Chance that can be repeated: numbers that are pure functions of a seed and an index."""

from __future__ import annotations

__all__ = ["uniform"]


def uniform(seed: int, index: int) -> float:
    """Return a number in [0, 1): a pure function of a seed and an index.

    SplitMix64 (Steele, Lea and Flood 2014), run once on the seed and once on the position.
    """
    return _splitmix64(_splitmix64(seed) + index) / 2**53


def _splitmix64(state: int) -> int:
    """Return the 53 upper bits of the next output from a state of any size."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 11
