"""The stack: all layers of a module in one call, for a few positions."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fst_engine.kernels import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_engine.pages import PagedCache

__all__ = ["Numbers", "Stack"]


class Numbers(NamedTuple):
    """What a layer computes with; weights are (out, in), and None is what it has not."""

    norm: torch.Tensor
    norm_bias: torch.Tensor | None
    ask: torch.Tensor
    ask_bias: torch.Tensor | None
    of_query: torch.Tensor | None
    of_key: torch.Tensor | None
    answer: torch.Tensor
    answer_bias: torch.Tensor | None
    second_norm: torch.Tensor
    second_bias: torch.Tensor | None
    up: torch.Tensor
    up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None
    eps: float
    head_eps: float
    scale: float
    heads: int
    groups: int
    dim: int


class _Layer(ctypes.Structure):
    """The same as decode.cpp has it."""

    _fields_ = [
        (name, ctypes.c_float if name in {"eps", "head_eps", "scale"} else ctypes.c_void_p)
        for name in Numbers._fields[:-3]
    ]


class _Shape(ctypes.Structure):
    """The same as decode.cpp has it."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("layers", "hidden", "heads", "groups", "dim", "inner", "gated")
    ]


class Stack:
    """Computes a few positions with threads that are woken once; of many, oneDNN's products are faster."""

    def __init__(self, layers: Sequence[Numbers]) -> None:
        """Take the layers in their order; their weights must not change."""
        first = layers[0]
        hidden, inner = first.down.shape
        gated = first.up.shape[0] == 2 * inner
        self._shape = _Shape(
            *(len(layers), hidden, first.heads, first.groups, first.dim, inner, gated)
        )
        self._layers = (_Layer * len(layers))(
            *(_Layer(*map(_address, each[: len(_Layer._fields_)])) for each in layers)
        )
        self._held = layers  # their addresses are not theirs if they are gone

    def __call__(
        self,
        states: torch.Tensor,
        cache: PagedCache,
        rotation: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Compute (1, new, hidden) of the last layer from what goes into the first."""
        states = states.clone(memory_format=torch.contiguous_format)
        turned = [each.contiguous() for each in rotation or ()]
        kernel("pass", states.dtype)(
            *(ctypes.addressof(self._shape), ctypes.addressof(self._layers)),
            *(cache.table.data_ptr(), cache.table.shape[1]),
            *(cache.slots.data_ptr(), cache.positions.data_ptr(), states.shape[1]),
            *([each.data_ptr() for each in turned] or (None, None)),
            *(states.data_ptr(), torch.get_num_threads()),
        )
        return states


def _address(number: Any) -> Any:
    return number.data_ptr() if isinstance(number, torch.Tensor) else number
