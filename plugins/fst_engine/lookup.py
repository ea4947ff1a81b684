"""The look-up: what followed a text's last ids when they stood in it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Lookup"]

_SIZES: Final = 3, 2
"""So many last ids are looked for, the longer first: what follows those follows more often again."""


class Lookup:
    """Guesses how a text goes on, where it repeats itself or its prompt; for one text that grows.

    Prompt look-up decoding (Saxena 2023). How much of the last guess was right says how far the next
    one reaches: two wrong ids cost a tenth of a step, and a right one saves a whole step.
    """

    def __init__(self, most: int) -> None:
        """Guess so many ids at most."""
        self._most = most
        self._reach = 2
        self._followed: dict[tuple[int, ...], int] = {}
        """Where the latest occurrence of some ids ends that something follows."""
        self._known = 0
        """The position up to which occurrences are noted."""

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """Return ids that may follow the text, `most` at most; none where its last ones are new."""
        for end in range(self._known, len(ids)):
            for size in _SIZES:
                if size <= end:
                    self._followed[tuple(ids[end - size : end])] = end
        self._known = len(ids)
        for size in _SIZES:
            found = self._followed.get(tuple(ids[-size:])) if size <= len(ids) else None
            if found is not None:
                period = len(ids) - found  # what has come to its own beginning goes on from there
                count = min(self._reach, self._most, most)
                return [ids[found + n % period] for n in range(count)]
        return []

    def learn(self, accepted: int) -> None:
        """Take note of how many ids of the last guess were right."""
        self._reach = 2 * accepted + 2
