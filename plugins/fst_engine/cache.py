"""The key-value cache: rows of differing lengths in one tensor a layer."""

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

    Row i lies in slot i, what belongs to its position p in column p: a batch is a view of the first
    slots, never gathered. Slots grow by doubling, columns in blocks; nothing is held without rows.
    A module uses it as `past_key_values`: it calls `update`, and maybe `get_seq_length`.
    """

    def __init__(self, lengths: Sequence[int] = (), dtype: torch.dtype | None = None) -> None:
        """Begin with empty rows' `lengths`; what is held has the dtype of the keys, or this one."""
        self.dtype = dtype
        self.lengths = list(lengths)
        """How many positions each row has."""
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._slots = self._columns = 0
        self._positions = torch.empty(0, 0, dtype=torch.int64)
        """(rows, new): the columns of what a forward pass computes, while it runs."""
        self._places: dict[int, torch.Tensor] = {}
        """For each number of heads, where the new positions of a forward pass are stored."""

    def begin(self, new: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for `new` positions a row.

        Returns:
            positions: (rows, new) int64; visible: (rows, new, columns) bool, what each may look at.
        """
        width = max(self.lengths) + new
        self._fit(len(self.lengths), width)
        begins = torch.tensor(self.lengths, device=device)
        self._positions = begins[:, None] + torch.arange(new, device=device)
        self._places.clear()
        visible = torch.arange(width, device=device) <= self._positions[:, :, None]
        return self._positions, visible

    def begin_texts(
        self, lengths: Sequence[int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Make room in the only row, which is empty, for the beginnings of several texts, one after another.

        Returns:
            positions: (1, new) int64, in each text from 0; visible: (1, new, new) bool: each looks at
            its own text alone; begins: (new,) int64, the column of its text's first.
        """
        new = sum(lengths)
        self._fit(1, new)
        self._places.clear()
        self._positions = torch.arange(new, device=device)[None]
        text = torch.repeat_interleave(torch.tensor(lengths, device=device))
        begins = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
        visible = (text == text[:, None]).tril_()
        return self._positions - begins[text], visible[None], begins[text]

    def commit(self) -> None:
        """Count the positions that `begin` made room for; without, the next `begin` overwrites them."""
        self.lengths = [length + self._positions.shape[1] for length in self.lengths]

    def update(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        layer_idx: int,
        *args: Any,  # noqa: ARG002  # what some modules pass to the caches of `transformers`
        **kwargs: Any,  # noqa: ARG002  # the same
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values, (rows, heads, new, head_dim), and return all of the rows' own."""
        if layer_idx not in self._layers:
            self._layers[layer_idx] = (self._like(keys), self._like(values))
        rows, heads, _, _ = keys.shape
        if heads not in self._places:
            head = torch.arange(rows * heads, device=keys.device).view(rows, heads, 1)
            self._places[heads] = (head * self._columns + self._positions[:, None]).view(-1)
        index = self._places[heads]
        for new, held in zip((keys, values), self._layers[layer_idx], strict=True):
            rows_of_new = new.to(held.dtype).reshape(-1, new.shape[-1])
            held.view(-1, held.shape[-1]).index_copy_(0, index, rows_of_new)
        width = max(self.lengths) + self._positions.shape[1]
        held_keys, held_values = self._layers[layer_idx]
        return held_keys[:rows, :, :width], held_values[:rows, :, :width]

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # part of the caches' interface
        """Return the length of the longest row."""
        return max(self.lengths, default=0)

    def append(self, row: SlotCache, begin: int = 0, length: int | None = None) -> None:
        """Take so many columns of the only row of another cache; without a length, the whole cache."""
        if length is None:
            (length,) = row.lengths
            if not self.lengths:
                self._layers, self._slots, self._columns = row._layers, row._slots, row._columns
                self.lengths = [length]
                return
        self._fit(len(self.lengths) + 1, max([*self.lengths, length]))
        for layer, pair in row._layers.items():
            if layer not in self._layers:
                self._layers[layer] = self._like(pair[0]), self._like(pair[1])
            for source, held in zip(pair, self._layers[layer], strict=True):
                held[len(self.lengths), :, :length] = source[0, :, begin : begin + length]
        self.lengths.append(length)

    def copy(self, row: int, length: int) -> SlotCache:
        """Return a cache whose only row is a copy of the first positions of a row."""
        copied = SlotCache([length], self.dtype)
        copied._slots, copied._columns = 1, _columns(length)
        for layer, pair in self._layers.items():
            keys, values = (copied._like(held) for held in pair)
            for held, new in zip(pair, (keys, values), strict=True):
                new[0, :, :length] = held[row, :, :length]
            copied._layers[layer] = keys, values
        return copied

    def remove(self, row: int) -> None:
        """Remove a row; the last one takes its slot."""
        last = len(self.lengths) - 1
        if last == 0:
            self.clear()
            return
        length, moved = self.lengths[row], self.lengths[last]
        for pair in self._layers.values():
            for held in pair:
                # What is not overwritten must not stay: a weight of 0 times NaN would be NaN.
                held[row, :, :length] = 0
                if row != last:
                    held[row, :, :moved] = held[last, :, :moved]
        self.lengths[row] = moved
        self.lengths.pop()

    def clear(self) -> None:
        """Remove all rows and free their memory."""
        self.lengths.clear()
        self._layers.clear()
        self._slots = self._columns = 0

    def bytes_for(self, rows: int, length: int) -> int:
        """Return the memory that so many rows of that length would take; 0 while no layer is known."""
        position = sum(
            held.shape[1] * held.shape[3] * held.element_size()
            for pair in self._layers.values()
            for held in pair
        )
        return _slots(rows) * _columns(length) * position

    def _fit(self, rows: int, length: int) -> None:
        """Reallocate all layers, if they are too small, as large as the rows need."""
        slots, columns = _slots(rows), _columns(length)
        if slots <= self._slots and columns <= self._columns:
            return
        self._slots, self._columns = slots, columns
        held_rows, width = len(self.lengths), max(self.lengths, default=0)
        for layer, pair in self._layers.items():
            keys, values = (self._like(held) for held in pair)
            for held, new in zip(pair, (keys, values), strict=True):
                new[:held_rows, :, :width] = held[:held_rows, :, :width]
            self._layers[layer] = (keys, values)

    def _like(self, other: torch.Tensor) -> torch.Tensor:
        """Return room for all slots and columns, with the heads and the dtype of (., heads, ., dim)."""
        shape = self._slots, other.shape[1], self._columns, other.shape[3]
        return other.new_zeros(shape, dtype=self.dtype or other.dtype)


def _slots(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


def _columns(length: int) -> int:
    return -(-length // BLOCK) * BLOCK
