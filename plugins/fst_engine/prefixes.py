"""Prefixes: keys and values of texts that are finished, for prompts that begin as they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fst_core.memory import give_back_freed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_engine.forward import Cache

__all__ = ["LEAST_SHARED", "Prefixes", "shared_length"]

LEAST_SHARED: Final = 16
"""With fewer ids in common, to read them again is as quick as to copy what was kept of them."""

TIDY: Final = 32
"""After so many texts what they left in pieces goes back to the system, which takes some milliseconds."""


class Prefixes:
    """Keeps the caches of single texts, up to a number of bytes; the one that was not used longest goes first.

    The next turn of a conversation begins with all turns before it, and prompts of one program begin
    with the same instructions. What is found is compared id by id, so that nobody gets another's.
    """

    def __init__(self, most_bytes: float) -> None:
        self._most_bytes = most_bytes
        self._kept: list[tuple[list[int], Cache]] = []
        """The last used one at the end."""
        self._since = 0
        """Texts that were kept since the last tidying."""

    def keep(self, ids: Sequence[int], cache: Cache, row: int) -> None:
        """Keep a copy of what a cache holds of a row, whose first ids these are."""
        length = cache.lengths[row]
        if length < LEAST_SHARED or cache.bytes_for([length]) > self._most_bytes:
            return
        ids = list(ids[:length])
        # What an earlier turn left is the beginning of what this one leaves.
        self._kept = [each for each in self._kept if shared_length(each[0], ids) < len(each[0])]
        self._kept.append((ids, cache.copy(row, length)))
        while sum(held.bytes_for([len(known)]) for known, held in self._kept) > self._most_bytes:
            self._kept.pop(0)
        self._since += 1
        if self._since == TIDY:
            # What is kept lies between what was freed: else the process grows by many times as much.
            self._since = 0
            give_back_freed()

    def find(self, ids: Sequence[int]) -> tuple[Cache | None, int]:
        """Return the cache that holds most of the first of these ids in its only row, and how many."""
        shared = [shared_length(known, ids) for known, _ in self._kept]
        longest = max(shared, default=0)
        if longest < LEAST_SHARED:
            return None, 0
        found = self._kept.pop(shared.index(longest))
        self._kept.append(found)
        return found[1], longest


def shared_length(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many ids two texts have in common at their beginning."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))
