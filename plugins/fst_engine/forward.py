"""The forward pass: ids in, the next ids' logits out."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from fst_engine.attention import all_visible, use_own_attention
from fst_engine.kernels import load_kernels
from fst_engine.layers import quicken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fst_engine.cache import SlotCache

__all__ = ["Forward", "attention_limits"]

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"


class _Where(NamedTuple):
    """Where new ids stand, and what they see of the cache."""

    positions: torch.Tensor
    """(rows, new) int64."""
    visible: torch.Tensor
    """(rows, new, columns) bool."""
    lengths: torch.Tensor | None = None
    """(rows * new,) int64, where our kernel attends: how many columns each sees."""
    begins: torch.Tensor | None = None
    """The same, and from which on; None: from the first."""


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
        self.cache_dtype: torch.dtype | None = None
        """What keys and values are kept in; None: what the module computes them in."""
        self._tells_lengths = False
        if not in_training and self.device.type == "cpu":
            self._tells_lengths = use_own_attention(module)
            if pack:
                quicken(module, own_attention=self._tells_lengths)
            if self._tells_lengths and load_kernels() is None and self.dtype.itemsize == 2:
                # torch's attention takes several times as long in bf16, and would convert all anew.
                self.cache_dtype = torch.float32
        self._vocab_size = vocab_size
        known = inspect.signature(module.forward).parameters
        # `transformers` 5.24 calls `cache` what it, and others, called `past_key_values` before.
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._keeps = "logits_to_keep" in known

    def __call__(
        self, ids: Sequence[Sequence[int]], cache: SlotCache | None, keep: int = 1
    ) -> torch.Tensor:
        """Compute equally many new ids of each row.

        Args:
            ids: (B, T), those that follow what the cache holds.
            cache: the rows' keys and values, which this adds to; None: `ids` are all there is.
            keep: of how many of the last positions the logits are wanted.

        Returns:
            (B, keep, vocab_size), in the module's dtype: the logits of the id after each of them.
        """
        if cache is None:
            return self._module(ids, keep)[:, -keep:]
        new = len(ids[0])
        positions, visible = cache.begin(new, self.device)
        ours = new == 1 or len(ids) == 1
        where = _Where(positions, visible, positions.view(-1) + 1 if ours else None)
        return self._module(ids, keep, cache, where)[:, -keep:]

    def read_together(self, texts: Sequence[Sequence[int]], cache: SlotCache) -> torch.Tensor:
        """Compute the beginnings of several texts as one row; none sees another.

        Args:
            texts: ids from the first on, at least one of each.
            cache: an empty row, which gets the texts' keys and values, one after another.

        Returns:
            (B, vocab_size): the logits of the id after each text.
        """
        lengths = [len(text) for text in texts]
        positions, visible, begins = cache.begin_texts(lengths, self.device)
        where = _Where(positions, visible, positions.view(-1) + 1, begins)
        ends = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        logits = self._module([list(chain(*texts))], ends, cache, where)
        return logits[0] if self._keeps else logits[0, ends]

    def _module(
        self,
        ids: Sequence[Sequence[int]],
        keep: int | torch.Tensor,
        cache: SlotCache | None = None,
        where: _Where | None = None,
    ) -> torch.Tensor:
        """Call the module; `keep` says of which positions its logits are wanted."""
        device, dtype = self.device, self.dtype
        arguments: dict[str, Any] = {"use_cache": False}
        said: AbstractContextManager[None] = nullcontext()
        if where is not None:
            mask = torch.zeros(where.visible.shape, dtype=dtype, device=device)
            mask = mask.masked_fill_(~where.visible, -torch.inf)[:, None]
            if self._tells_lengths and where.lengths is not None:
                said = all_visible(mask, where.lengths, where.begins)
            arguments = {
                "position_ids": where.positions,
                "attention_mask": mask,
                self._cache_name: cache,
                "use_cache": True,
            }
        # Not inference mode: a buffer that the module makes here may take part in its training.
        if self._keeps:
            arguments["logits_to_keep"] = keep
        with self._mode(self.module), torch.no_grad(), said:
            output = self.module(input_ids=torch.tensor(ids, device=device), **arguments)
        if cache is not None:
            cache.commit()
        logits: torch.Tensor = output.logits[..., : self._vocab_size]
        # Samplers compute in float64 too, which MPS has not.
        return logits.cpu() if device.type == "mps" else logits

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What the module computes in."""
        floating = (p.dtype for p in self.module.parameters() if p.is_floating_point())
        return next(floating, torch.float32)


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
