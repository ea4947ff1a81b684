"""The same functions of torch, faster on a CPU, for a module whose weights do not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional as F  # noqa: N812  # its customary name
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["CpuFunctions"]

_ROWS: Final = 16
"""For how many rows the layout of packed weights is chosen; it serves any number."""
_DTYPES: Final = (torch.float32, torch.bfloat16)


class CpuFunctions(TorchFunctionMode):
    """Where it is entered, products with the module's weights use a copy of them in oneDNN's own layout.

    For a few rows they take from a third to two thirds of the time so. Attention takes any mixture
    of dtypes and computes in float32: for one new position, a CPU takes several times as long in
    bf16, so keys and values are kept in float32.
    """

    def __init__(self, module: torch.nn.Module, *, pack: bool) -> None:
        super().__init__()
        self._packed: dict[int, torch.Tensor] = {}
        """By the address of a weight: of `linear` as they are, of `addmm` turned."""
        self._weights = list(module.parameters()) if pack and _can_pack() else []
        self._addresses = {
            w.data_ptr() for w in self._weights if w.ndim == 2 and w.dtype in _DTYPES
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch."""
        named = kwargs or {}
        if func is F.linear and len(args) > 1 and self._knows(args[1]):
            bias = args[2] if len(args) > 2 else named.get("bias")
            return self._product(args[0], args[1], bias, turned=False)
        if func is torch.addmm and not named and self._knows(args[2]) and args[0].ndim == 1:
            return self._product(args[1], args[2], args[0], turned=True)
        if func is F.scaled_dot_product_attention:
            wide = {name: _wide(value) for name, value in named.items()}
            dtype = (args[0] if args else named["query"]).dtype
            return func(*map(_wide, args), **wide).to(dtype)
        return func(*args, **named)

    def _knows(self, weight: Any) -> bool:
        return isinstance(weight, torch.nn.Parameter) and weight.data_ptr() in self._addresses

    def _product(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, turned: bool
    ) -> torch.Tensor:
        """Return x times the weight, (out, in) or turned, plus the bias."""
        packed = self._packed.get(weight.data_ptr())
        if packed is None:
            plain = weight.t().contiguous() if turned else weight.detach()
            packed = torch.ops.mkldnn._reorder_linear_weight(plain, _ROWS)  # noqa: SLF001  # torch's compiler uses it so
            self._packed[weight.data_ptr()] = packed
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")  # noqa: SLF001  # the same
        return result


def _can_pack() -> bool:
    """Say whether this torch has what its compiler calls for the same purpose."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch left it unannotated
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)


def _wide(value: Any) -> Any:
    is_narrow = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.float() if is_narrow else value
