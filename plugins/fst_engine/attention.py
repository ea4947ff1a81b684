"""Attention in float32, inside a module that computes in bf16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812  # its customary name
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["WideAttention"]


class WideAttention(TorchFunctionMode):
    """Where it is entered, torch's attention takes any mixture of dtypes and computes in float32.

    For one new position, a CPU's attention in bf16 takes several times as long as in float32: so keys
    and values are kept in float32, and the queries follow them.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = {name: _wide(value) for name, value in (kwargs or {}).items()}
        dtype = (args[0] if args else (kwargs or {})["query"]).dtype
        return func(*map(_wide, args), **named).to(dtype)


def _wide(value: Any) -> Any:
    is_narrow = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_narrow else value
