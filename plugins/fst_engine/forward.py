"""The forward pass: ids in, the next ids' logits out."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Final

import torch

from fst_engine.attention import all_visible, use_own_attention
from fst_engine.cache import SlotCache
from fst_engine.kernels import load_kernels
from fst_engine.layers import quicken
from fst_engine.pages import PagedCache

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fst_engine.pages import PageShape

    Cache = SlotCache | PagedCache

__all__ = ["Cache", "Forward", "attention_limits"]

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
_LEAST: Final = 16
"""A forward pass costs as much as about this many ids, so that up to here rows are padded."""
_NO_MASK: Final = torch.zeros(1, 1, 1, 1)
"""Without a mask, a module would make one."""


class Forward:
    """Calls a module as those of `transformers` are called, wherever it is at that moment."""

    def __init__(
        self,
        module: torch.nn.Module,
        vocab_size: int,
        *,
        supports_cache: bool = True,
        in_training: bool = True,
        pack: bool = False,
    ) -> None:
        """Take a module; one that nobody trains, and that is in evaluation mode, stays in it.

        With `pack`, a second copy of the weights makes products on a CPU faster.
        """
        self.module = module
        self.supports_cache = supports_cache
        self._mode = _evaluating if in_training else nullcontext
        self._cache_dtype: torch.dtype | None = None
        self._own_attention = False
        self._pages: PageShape | None = None
        """Of layers that are exchanged whole."""
        if not in_training and self.device.type == "cpu":
            self._own_attention = supports_cache and use_own_attention(module)
            if pack:
                self._pages = quicken(module, own_attention=self._own_attention)
            if self._own_attention and load_kernels() is None and self.dtype.itemsize == 2:
                # torch's attention takes several times as long in bf16, and would convert all anew.
                self._cache_dtype = torch.float32
        self._vocab_size = vocab_size
        known = inspect.signature(module.forward).parameters
        # `transformers` 5.24 calls `cache` what it, and others, called `past_key_values` before.
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._keeps = "logits_to_keep" in known

    def new_cache(self) -> Cache:
        """Return a cache without rows, of the kind that the module needs."""
        return PagedCache(self._pages) if self._pages else SlotCache(self._cache_dtype)

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        cache: Cache,
        slots: Sequence[int] | None = None,
        keep: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Compute new ids of some rows.

        Args:
            ids: of each row, those that follow what the cache holds, at least one; of a module
                without a cache, all that there are.
            cache: the rows' keys and values, which this adds to.
            slots: where each row lies in the cache; by default, in their order.
            keep: of how many of its last ids the logits are wanted; by default, of one.

        Returns:
            (sum of keep, vocab_size), in the module's dtype: the logits of what follows each of them.
        """
        slots = range(len(ids)) if slots is None else slots
        keep = [1] * len(ids) if keep is None else keep
        if not self.supports_cache:
            alone = (self._module([row], n)[0, -n:] for row, n in zip(ids, keep, strict=True))
            return torch.cat(list(alone))
        if isinstance(cache, PagedCache):
            logits = self._in_line(ids, cache, slots, keep)
        else:
            logits = self._side_by_side(ids, cache, slots, keep)
        cache.commit(slots, [len(row) for row in ids])
        return logits

    def _in_line(
        self,
        ids: Sequence[Sequence[int]],
        cache: PagedCache,
        slots: Sequence[int],
        keep: Sequence[int],
    ) -> torch.Tensor:
        """Compute all rows in one pass, one after another: layers of ours know whose an id is."""
        counts = [len(row) for row in ids]
        positions = cache.place(slots, counts)
        wanted = (range(end - n, end) for end, n in zip(accumulate(counts), keep, strict=True))
        kept = torch.tensor(list(chain(*wanted)))
        logits = self._module([list(chain(*ids))], kept, cache, positions[None], _NO_MASK)[0]
        return logits if self._keeps else logits[kept]

    def _side_by_side(
        self,
        ids: Sequence[Sequence[int]],
        cache: SlotCache,
        slots: Sequence[int],
        keep: Sequence[int],
    ) -> torch.Tensor:
        """Compute rows of about as many ids in a pass each, padded, under a mask."""
        widths = [_width(len(row)) for row in ids]
        cache.reserve(slots, widths)
        found: dict[int, torch.Tensor] = {}
        for width in sorted(set(widths)):  # rows of one id first: they compute others along
            numbers = [number for number, own in enumerate(widths) if own == width]
            parts = (
                [ids[n] for n in numbers],
                [slots[n] for n in numbers],
                [keep[n] for n in numbers],
            )
            found.update(zip(numbers, self._padded(cache, *parts), strict=True))
        return torch.cat([found[number] for number in range(len(ids))])

    def _padded(
        self,
        cache: SlotCache,
        ids: Sequence[Sequence[int]],
        slots: Sequence[int],
        keep: Sequence[int],
    ) -> list[torch.Tensor]:
        """Return the wanted logits of each row of one pass."""
        new, rows = max(map(len, ids)), dict(zip(slots, ids, strict=True))
        if new == 1:  # with the rows between them, so that keys and values need not be gathered
            rows = {slot: rows.get(slot, ()) for slot in range(min(slots), max(slots) + 1)}
        counts = [len(row) for row in rows.values()]
        positions, visible = cache.place(list(rows), counts, self.device)
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=self.device)
        mask = mask.masked_fill_(~visible, -torch.inf)[:, None]
        said: AbstractContextManager[None] = nullcontext()
        if self._own_attention and (new == 1 or len(rows) == 1):
            numbers = torch.arange(len(rows)).repeat_interleave(new)
            said = all_visible(mask, numbers, cache.positions.view(-1))
        padding = [ids[0][0]] * new
        padded = [[*row, *padding[len(row) :]] for row in rows.values()]
        most = max(new - len(row) + n for row, n in zip(ids, keep, strict=True))
        with said:
            logits = self._module(padded, most, cache, positions, mask)[:, -most:]
        of_slot = dict(zip(rows, logits, strict=True))
        ends = (len(row) - new + most for row in ids)
        return [
            of_slot[slot][end - n : end] for slot, end, n in zip(slots, ends, keep, strict=True)
        ]

    def _module(
        self,
        ids: Sequence[Sequence[int]],
        keep: int | torch.Tensor,
        cache: Cache | None = None,
        positions: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Call the module; `keep` says of which positions its logits are wanted at least."""
        arguments: dict[str, Any] = {"use_cache": False}
        if cache is not None:
            arguments = {
                "position_ids": positions,
                "attention_mask": mask,
                self._cache_name: cache,
                "use_cache": True,
            }
        if self._keeps:
            arguments["logits_to_keep"] = keep
        # Not inference mode: a buffer that the module makes here may take part in its training.
        with self._mode(self.module), torch.no_grad():
            output = self.module(input_ids=torch.tensor(ids, device=self.device), **arguments)
        logits: torch.Tensor = output.logits[..., : self._vocab_size]
        # Samplers compute in float64 too, which MPS has not.
        return logits.cpu() if logits.device.type == "mps" else logits

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What the module computes in."""
        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return next(floating, torch.float32)


def _width(count: int) -> int:
    """Return how many ids a row of so many has room for, in a pass with others of the same width."""
    return 1 if count == 1 else max(_LEAST, 1 << (count - 1).bit_length())


def attention_limits(
    module: torch.nn.Module, context_length: int, *, supports_cache: bool
) -> tuple[int, bool]:
    """Return up to which length our cache and mask say all of a module's attention, and if they can.

    Within its window, sliding attention is full attention; recurrent layers have no keys and values.
    """
    config = getattr(module, "config", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds <= {_FULL, _SLIDING}:
        supports_cache = False
    window = getattr(config, "sliding_window", None)
    if supports_cache and window and kinds != {_FULL}:
        context_length = min(context_length, window)
    return context_length, supports_cache


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each part back into its own."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
