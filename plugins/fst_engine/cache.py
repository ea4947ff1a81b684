"""The cache of modules as they are: keys and values of rows in one tensor a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SlotCache"]

BLOCK: Final = 256
"""Columns are allocated in multiples of this."""


class SlotCache:
    """Keys and values of the rows of a batch, (slots, heads, columns, head_dim) each, a layer.

    Row i lies in slot i, what belongs to its position p in column p. Slots grow by doubling, columns
    in blocks; nothing is held without rows. A module uses it as `past_key_values`: it calls `update`, and
    maybe `get_seq_length`. What lies beyond a row's end is hidden by a mask alone, so it is always finite.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        """Begin without rows; what is held has the dtype of the keys, or this one."""
        self.dtype = dtype
        self.lengths: list[int] = []
        """How many positions each row has."""
        self._written: list[int] = []
        """How many columns of each slot may hold something."""
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._slots = self._columns = 0
        self.slots = self.positions = torch.empty(0, dtype=torch.int64)
        """Of each new position of a pass, while it runs: its row, and its column."""
        self._view: tuple[slice | list[int], slice, slice] = slice(0), slice(0), slice(0)
        """What there is of the rows of a pass, while it runs."""
        self._places: dict[int, torch.Tensor] = {}
        """For each number of heads, where the new positions of a pass are stored."""

    def add(self, source: SlotCache | None = None, row: int = 0, length: int = 0) -> None:
        """Add an empty row, or one that begins with the first positions of a row of a cache."""
        slot = len(self.lengths)
        self._fit(slot + 1, max([*self.lengths, length]))
        self._wipe(slot, 0)
        if source is not None:
            for layer, pair in source._layers.items():  # noqa: SLF001  # one of its own kind
                for old, new in zip(pair, self._layer(layer, pair[0]), strict=True):
                    new[slot, :, :length] = old[row, :, :length]
        self.lengths.append(length)
        self._written[slot] = length

    def reserve(self, slots: Sequence[int], counts: Sequence[int]) -> None:
        """Make room for so many new positions of some rows, and for one of any other."""
        ends = [self.lengths[slot] + new for slot, new in zip(slots, counts, strict=True)]
        self._fit(len(self.lengths), max([*ends, max(self.lengths) + 1]))

    def place(
        self, slots: Sequence[int], counts: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Place the new positions of a pass that computes rows side by side, padded to the most.

        A row of none is computed along; what that stores is overwritten, as padding is.

        Returns:
            positions: (rows, new) int64, where there is padding the row's last; visible:
            (rows, new, columns) bool, what each may look at.
        """
        new = max(counts)
        begins = torch.tensor([self.lengths[slot] for slot in slots], device=device)[:, None]
        self.positions = begins + torch.arange(new, device=device)
        self.slots = torch.tensor(slots, device=device)[:, None].expand_as(self.positions)
        width = max(self.lengths[slot] for slot in slots) + new
        visible = torch.arange(width, device=device) <= self.positions[:, :, None]
        first, last = slots[0], slots[-1] + 1
        # A view, where they lie side by side.
        rows = slice(first, last) if list(slots) == list(range(first, last)) else list(slots)
        self._view = rows, slice(None), slice(width)
        self._places.clear()
        for slot in slots:
            self._written[slot] = max(self._written[slot], self.lengths[slot] + new)
        ends = begins + torch.tensor(counts, device=device)[:, None].clamp(1) - 1
        return torch.minimum(self.positions, ends), visible

    def commit(self, slots: Sequence[int], counts: Sequence[int]) -> None:
        """Count new positions; without, the next pass overwrites them."""
        for slot, count in zip(slots, counts, strict=True):
            self.lengths[slot] += count

    def update(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        layer_idx: int,
        *args: Any,  # noqa: ARG002  # what some modules pass to the caches of `transformers`
        **kwargs: Any,  # noqa: ARG002  # the same
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what a padded pass computed, (rows, heads, new, head_dim), and return all its rows have."""
        held = self._layer(layer_idx, keys)
        heads, width = keys.shape[1], keys.shape[3]
        if heads not in self._places:
            head = self.slots[:, None] * heads + torch.arange(heads, device=keys.device)[:, None]
            self._places[heads] = (head * self._columns + self.positions[:, None]).view(-1)
        for source, target in zip((keys, values), held, strict=True):
            new = source.to(target.dtype).reshape(-1, width)
            target.view(-1, width).index_copy_(0, self._places[heads], new)
        return held[0][self._view], held[1][self._view]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # part of the caches' interface
        """Return the length of the longest row."""
        return max(self.lengths, default=0)

    def copy(self, row: int, length: int) -> SlotCache:
        """Return a cache whose only row is a copy of the first positions of a row."""
        copied = SlotCache(self.dtype)
        copied.add(self, row, length)
        return copied

    def shorten(self, row: int, length: int) -> None:
        """Forget the positions of a row from there on."""
        self.lengths[row] = length
        self._wipe(row, length)

    def remove(self, row: int) -> None:
        """Remove a row; the last one takes its slot."""
        length = self.lengths.pop()
        last = len(self.lengths)
        if last == 0:
            self.clear()
        elif row != last:
            self._wipe(row, 0)
            for pair in self._layers.values():
                for held in pair:
                    held[row, :, :length] = held[last, :, :length]
            self.lengths[row] = self._written[row] = length

    def clear(self) -> None:
        """Remove all rows and free their memory."""
        self.lengths.clear()
        self._written.clear()
        self._layers.clear()
        self._slots = self._columns = 0

    def bytes_for(self, lengths: Sequence[int]) -> int:
        """Return the memory that rows of these lengths take; 0 while no layer is known."""
        position = sum(
            held.shape[1] * held.shape[3] * held.element_size()
            for pair in self._layers.values()
            for held in pair
        )
        return _power(len(lengths)) * _columns(max(lengths)) * position

    def _fit(self, rows: int, length: int) -> None:
        """Reallocate all layers, if they are too small, as large as the rows need."""
        slots, columns = _power(rows), _columns(length)
        if slots <= self._slots and columns <= self._columns:
            return
        self._slots, self._columns = max(slots, self._slots), max(columns, self._columns)
        width = max(self.lengths, default=0)
        for layer, pair in self._layers.items():
            fresh = self._like(pair[0]), self._like(pair[1])
            for old, new in zip(pair, fresh, strict=True):
                new[: len(self.lengths), :, :width] = old[: len(self.lengths), :, :width]
            self._layers[layer] = fresh
        self._written = [*self.lengths, *[0] * (self._slots - len(self.lengths))]

    def _layer(self, layer: int, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is held of a layer, of which (., heads, ., head_dim) are some keys."""
        if layer not in self._layers:
            self._layers[layer] = self._like(keys), self._like(keys)
        return self._layers[layer]

    def _like(self, other: torch.Tensor) -> torch.Tensor:
        """Return room for all slots and columns, with the heads and the dtype of (., heads, ., dim)."""
        shape = self._slots, other.shape[1], self._columns, other.shape[3]
        return other.new_zeros(shape, dtype=self.dtype or other.dtype)

    def _wipe(self, slot: int, begin: int) -> None:
        """Zero what a slot holds from a column on: under a mask, a weight of 0 times NaN would be NaN."""
        if self._written[slot] > begin:
            for pair in self._layers.values():
                for held in pair:
                    held[slot, :, begin : self._written[slot]] = 0
        self._written[slot] = min(self._written[slot], begin)


def _power(least: int) -> int:
    """Return the power of two that is at least so much."""
    return 1 << (least - 1).bit_length()


def _columns(length: int) -> int:
    return -(-length // BLOCK) * BLOCK
