"""Products with weights that do not change, on a CPU, by a copy of them in oneDNN's own layout."""

from __future__ import annotations

from typing import Any, Final

import torch

from fst_engine.kernels import FEW, kernel, load_kernels

__all__ = ["FUSED", "Product", "can_pack", "is_product", "kind"]

_ROWS: Final = 16
"""For how many rows the layout of packed weights is chosen; it serves any number."""
_DTYPES: Final = (torch.float32, torch.bfloat16)
_LINEAR: Final = {
    "torch.nn.modules.linear.Linear": False,
    "transformers.pytorch_utils.Conv1D": True,
}
"""The layers that are a product, and whether their weight is (in, out)."""
FUSED: Final = {"transformers.activations.NewGELUActivation": ("gelu", "tanh")}
"""What oneDNN calls activations that it computes along with a product; decode.cpp has the same."""


def can_pack() -> bool:
    """Say whether this torch has what its compiler calls for the same purpose."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch left it unannotated
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)


def kind(part: torch.nn.Module) -> str:
    """Return the full name of a module's class, which a subclass does not share."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def is_product(part: torch.nn.Module) -> bool:
    """Say whether a module is a product that can be packed."""
    weight: Any = getattr(part, "weight", None)
    return kind(part) in _LINEAR and weight.dtype in _DTYPES


class Product:
    """The outputs of one or several such layers of one input, side by side.

    For a few rows it takes from a third to two thirds of the time that the layers take.
    """

    def __init__(self, *layers: Any, activation: str = "none", variant: str = "") -> None:
        """Take layers of which all or none have a bias; their weights become parts of one."""
        weights = [part.weight.detach() for part in layers]
        turned = [_LINEAR[kind(part)] for part in layers]
        self.weight = torch.cat([w.t() if t else w for w, t in zip(weights, turned, strict=True)])
        """(out, in), in their order."""
        counts = [w.shape[1 if t else 0] for w, t in zip(weights, turned, strict=True)]
        rows = torch.split(self.weight, counts)
        for part, own, t in zip(layers, rows, turned, strict=True):
            part.weight.data = own.t() if t else own  # so that it is there once
        biases = [part.bias.detach() for part in layers if part.bias is not None]
        self.bias = torch.cat(biases) if biases else None
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _ROWS)  # noqa: SLF001  # torch's compiler uses it so
        self._activation, self._variant = activation, variant
        self._alone = activation == "none" and load_kernels() is not None

    def __call__(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Return (..., out) of (..., in), with what is added."""
        compute = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001  # the same
        result: torch.Tensor
        count = x.numel() // x.shape[-1]
        if count <= FEW[x.dtype] and added is None and self._alone:
            result = x.new_empty(*x.shape[:-1], len(self.weight))
            kernel("product", x.dtype)(
                *(self.weight.data_ptr(), None if self.bias is None else self.bias.data_ptr()),
                *(x.contiguous().data_ptr(), result.data_ptr(), *self.weight.shape, count),
                torch.get_num_threads(),
            )
            return result
        if added is None:
            result = compute.default(
                x, self._packed, self.bias, self._activation, [], self._variant
            )
        else:
            result = compute.binary(x, added, self._packed, self.bias, "add")
        return result
