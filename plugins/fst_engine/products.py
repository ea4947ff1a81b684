"""Products with weights that do not change, on a CPU, by a copy of them in oneDNN's own layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Product = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["FUSED", "can_pack", "is_product", "kind", "product"]

_ROWS: Final = 16
"""For how many rows the layout of packed weights is chosen; it serves any number."""
_DTYPES: Final = (torch.float32, torch.bfloat16)
_LINEAR: Final = {
    "torch.nn.modules.linear.Linear": False,
    "transformers.pytorch_utils.Conv1D": True,
}
"""The layers that are a product, and whether their weight is (in, out)."""
FUSED: Final = {"transformers.activations.NewGELUActivation": ("gelu", "tanh")}
"""What oneDNN calls activations that it computes along with a product."""


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


def product(*layers: Any, activation: str = "none", variant: str = "") -> Product:
    """Return what gives the outputs of one or several such layers of one input, side by side.

    All or none of them have a bias. For a few rows it takes from a third to two thirds of the time that
    the layers take.
    """
    weights = [part.weight.detach() for part in layers]
    turned = [_LINEAR[kind(part)] for part in layers]
    plain = torch.cat([w.t() if turn else w for w, turn in zip(weights, turned, strict=True)])
    packed = torch.ops.mkldnn._reorder_linear_weight(plain, _ROWS)  # noqa: SLF001  # torch's compiler uses it so
    biases = [part.bias.detach() for part in layers if part.bias is not None]
    bias = torch.cat(biases) if biases else None
    compute = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001  # the same

    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = compute(x, packed, bias, activation, [], variant)
        return result

    return forward
