"""The paged cache: keys and values as the kernels of decode.cpp read them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PAGE", "PageShape", "PagedCache"]

PAGE: Final = 128
"""Positions of a page; decode.cpp has the same number."""


class PageShape(NamedTuple):
    """What the layers of a module keep of a position."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype


class PagedCache:
    """Keys and values of rows of differing lengths, in pages that rows with one beginning share.

    A page is (layers, 2, heads, PAGE, head_dim), keys before values. A row that grows takes another page,
    and nothing that is there is moved (PagedAttention, Kwon et al. 2023). What a row has is never
    written again, so that others may read it.
    """

    def __init__(self, shape: PageShape) -> None:
        self.lengths: list[int] = []
        """How many positions each row has."""
        self._pages: list[list[torch.Tensor]] = []
        """Of each row."""
        self._shape = shape
        values = shape.heads * PAGE * shape.head_dim * shape.dtype.itemsize
        self._layer_bytes = 2 * values
        self.positions = self.slots = self.table = torch.empty(0, dtype=torch.int64)
        """Of each new position of a pass, while it runs: its place in its row, and its row; and of each
        row the addresses of its pages."""

    def add(self, source: PagedCache | None = None, row: int = 0, length: int = 0) -> None:
        """Add an empty row, or one that begins with the first positions of a row of a cache."""
        pages: list[torch.Tensor] = []
        if source is not None:
            whole, rest = divmod(length, PAGE)
            pages = source._pages[row][:whole]  # noqa: SLF001  # one of its own kind
            if rest:  # the only page that both would write
                begun = self._page()
                begun[:, :, :, :rest] = source._pages[row][whole][:, :, :, :rest]  # noqa: SLF001  # the same
                pages.append(begun)
        self._pages.append(pages)
        self.lengths.append(length)

    def place(self, slots: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
        """Make room for new positions of some rows, which a pass computes one row's after another's.

        Returns:
            (sum of counts,) int64: the positions.
        """
        begins = [self.lengths[slot] for slot in slots]
        for slot, begin, n in zip(slots, begins, counts, strict=True):
            while len(self._pages[slot]) * PAGE < begin + n:
                self._pages[slot].append(self._page())
        most = max(map(len, self._pages))
        addresses = ([page.data_ptr() for page in pages] for pages in self._pages)
        self.table = torch.tensor([[*each, *[0] * (most - len(each))] for each in addresses])
        ranges = (range(begin, begin + n) for begin, n in zip(begins, counts, strict=True))
        self.positions = torch.tensor(list(chain(*ranges)))
        rows = ([slot] * n for slot, n in zip(slots, counts, strict=True))
        self.slots = torch.tensor(list(chain(*rows)))
        return self.positions

    def offsets(self, layer: int) -> tuple[int, int]:
        """Return the bytes from a page's beginning to the keys and the values of a layer."""
        keys = layer * self._layer_bytes
        return keys, keys + self._layer_bytes // 2

    def commit(self, slots: Sequence[int], counts: Sequence[int]) -> None:
        """Count new positions; without, the next pass overwrites them."""
        for slot, count in zip(slots, counts, strict=True):
            self.lengths[slot] += count

    def copy(self, row: int, length: int) -> PagedCache:
        """Return a cache whose only row has the first positions of a row, for others to begin with."""
        copied = PagedCache(self._shape)
        copied.lengths = [length]
        copied._pages = [self._pages[row][: -(-length // PAGE)]]
        return copied

    def shorten(self, row: int, length: int) -> None:
        """Forget the last positions of a row, of those that it did not begin with."""
        self.lengths[row] = length

    def remove(self, row: int) -> None:
        """Remove a row; the last one takes its slot."""
        self.lengths[row], self._pages[row] = self.lengths[-1], self._pages[-1]
        self.lengths.pop()
        self._pages.pop()

    def bytes_for(self, lengths: Sequence[int]) -> int:
        """Return the memory that rows of these lengths take, if they share nothing."""
        page = self._shape.layers * self._layer_bytes
        return sum(-(-length // PAGE) for length in lengths) * page

    def _page(self) -> torch.Tensor:
        layers, heads, head_dim, dtype = self._shape
        return torch.empty(layers, 2, heads, PAGE, head_dim, dtype=dtype)
