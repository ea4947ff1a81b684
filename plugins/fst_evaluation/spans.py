"""Spans: which runs of ids stand word for word in a corpus, however large it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

__all__ = ["Span", "found_in"]

Span = tuple[int, ...]

_BLOCK: Final = 2**20
"""Ids of the corpus that are looked at together."""
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2**64
_INVERSE: Final = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))


def found_in(corpus: NDArray[Any], spans: Collection[Span]) -> set[Span]:
    """Return those of the spans, all of one length, that stand in the corpus.

    Each place of the corpus is hashed with the ids after it, block by block (the rolling hash of Karp
    and Rabin 1987); where a hash is that of a span, the ids are compared, so that the answer is exact.

    Args:
        corpus: (tokens,) ids, which may be memory-mapped: a block at a time is read.
        spans: what to look for.
    """
    if not spans:
        return set()
    wanted = set(spans)
    length = len(next(iter(wanted)))
    hashes = np.unique(np.concatenate([_hashes(np.array(span), length) for span in wanted]))
    found: set[Span] = set()
    for first in range(0, len(corpus) - length + 1, _BLOCK):
        block = np.asarray(corpus[first : first + _BLOCK + length - 1])
        here = _hashes(block, length)
        near = hashes[np.minimum(np.searchsorted(hashes, here), len(hashes) - 1)]
        for place in np.flatnonzero(near == here).tolist():
            found.add(tuple(block[place : place + length].tolist()))
    return found & wanted


def _hashes(ids: NDArray[Any], length: int) -> NDArray[np.uint64]:
    """Return the hash of each span of a length: sums of ids times powers, modulo 2**64."""
    count = len(ids)
    powers = np.cumprod(np.full(count, _BASE, np.uint64))  # arrays of unsigned integers wrap around
    inverses = np.cumprod(np.full(count, _INVERSE, np.uint64))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(ids.astype(np.uint64) * powers)])
    hashes: NDArray[np.uint64] = (sums[length:] - sums[:-length]) * inverses[: count - length + 1]
    return hashes
