"""Attention on a CPU: of one row, or one new position a row, by decode.cpp; else by torch in float32."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from fst_engine.kernels import KERNEL_DTYPES, WIDEST, kernel, load_kernels
from fst_engine.pages import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["all_visible", "attention", "use_own_attention"]

_NAME: Final = "fst"


class _Rows(threading.local):
    """What this thread's forward pass says of its new positions: one of each row, or some of one row."""

    mask: torch.Tensor | None = None
    """The mask that says the same; attention under another one is not ours."""
    slots: torch.Tensor
    """(positions,) int64: the row of each."""
    columns: torch.Tensor
    """(positions,) int64: the last column of it that each sees."""


_ROWS: Final = _Rows()


def use_own_attention(module: torch.nn.Module) -> bool:
    """Let a module of `transformers` that leaves attention to torch use ours, and say if it does."""
    config = getattr(module, "config", None)
    if getattr(config, "_attn_implementation", None) not in {"sdpa", _NAME}:
        return False
    _register()
    module.set_attn_implementation(_NAME)  # type: ignore[operator]  # to mypy a module's attributes are modules
    return getattr(config, "_attn_implementation", None) == _NAME


@contextmanager
def all_visible(mask: torch.Tensor, slots: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """While it lasts, a new position under this mask sees the columns of its row up to one.

    There is one position of each row, or there is one row. Both are (positions,) int64.
    """
    _ROWS.mask, _ROWS.slots, _ROWS.columns = mask, slots, columns
    try:
        yield
    finally:
        _ROWS.mask = None


@functools.cache
def _register() -> None:
    """Make our attention known to `transformers`, with masks like those for torch's."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as torch's attention does, in float32.

    Args:
        module: the layer; how many heads share keys and values may be read from it.
        query: (rows, heads, new, head_dim).
        key: (rows, key heads, columns, head_dim).
        value: as the keys.
        attention_mask: (rows, 1, new, columns), of booleans or to be added.
        named: `scaling`, and what else `transformers` says to the attentions that it knows.

    Returns:
        (rows, new, heads, head_dim), and no weights.
    """
    is_known = attention_mask is not None and attention_mask is _ROWS.mask
    if is_known and load_kernels() and _fits(query, key, value, named):
        return _attend(query, key, value, named.get("scaling")), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    found, _ = sdpa_attention_forward(
        module, query.float(), key.float(), value.float(), attention_mask, **named
    )
    return found.to(query.dtype), None


def _fits(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, named: Mapping[str, Any]
) -> bool:
    """Say whether the kernel computes just this."""
    width = query.shape[3]
    return (
        query.dtype in KERNEL_DTYPES
        and query.dtype == key.dtype == value.dtype
        and width <= WIDEST
        and key.shape == value.shape
        and key.shape[3] == width
        and query.shape[1] % key.shape[1] == 0
        and key.stride() == value.stride()
        and key.stride()[2:] == (width, 1)
        and named.get("position_bias") is None
        and named.get("softcap") is None
    )


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    rows, heads, new, width = query.shape
    query = query.transpose(1, 2).reshape(rows * new, heads, width)
    if query.stride()[1:] != (width, 1):
        query = query.contiguous()
    out = query.new_empty(rows, new, heads, width)
    # A row's columns lie side by side, so that each page follows the one before.
    begins = torch.arange(key.shape[0])[:, None] * key.stride(0)
    pages = begins + torch.arange(-(-key.shape[2] // PAGE)) * PAGE * width
    pages = (pages * key.itemsize).contiguous()
    kernel("attend", query.dtype)(
        *(query.data_ptr(), None, out.data_ptr(), pages.data_ptr(), pages.shape[1]),
        *(each.data_ptr() for each in (key, value, _ROWS.slots, _ROWS.columns)),
        *(rows * new, heads, key.shape[1], width, query.stride(0), key.stride(1)),
        width**-0.5 if scaling is None else scaling,
        torch.get_num_threads(),
    )
    return out
