"""Which documents are held out, known document by document where their number makes no difference."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

import numpy as np

from fst_core.documents import held_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["HeldOut"]

_BLOCK: Final = 2**12


class HeldOut:
    """The choice that `fst_core.documents.held_out` makes, for documents not all of which are counted.

    Their number matters to it only where all chances are on one side of the share. So they are
    counted as far as the first document of each kind, which is seldom far.
    """

    def __init__(self, documents: Iterable[object], share: float, seed: int) -> None:
        self._share = share
        self._seed = seed
        self._counted: NDArray[np.bool_] | None = None
        number, kinds = 0, set()
        for _, choice in zip(documents, self._choices(), strict=False):
            number += 1
            kinds.add(choice)
            if len(kinds) == 2:
                break
        else:
            self._counted = held_out(number, share, seed)
        self.single = number == 1
        """Whether there is but one document, a part of which is held out."""

    def __iter__(self) -> Iterator[bool]:
        """Yield whether each document is held out; without an end where they are not counted."""
        return self._choices() if self._counted is None else iter(self._counted.tolist())

    def _choices(self) -> Iterator[bool]:
        for first in count(0, _BLOCK):
            yield from (chances(self._seed, first, _BLOCK) < self._share).tolist()


def chances(seed: int, first: int, number: int) -> NDArray[np.float64]:
    """Return `fst_core.chance.uniform` of some indices from the first on, (number,), all at once."""
    hashed = _splitmix64(np.array([seed % 2**64], np.uint64))
    indices = np.arange(first, first + number, dtype=np.uint64)
    return _splitmix64(hashed + indices) / 2.0**53


def _splitmix64(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = states + np.uint64(0x9E3779B97F4A7C15)  # arrays of unsigned integers wrap around
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(11)
