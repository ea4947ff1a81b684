"""A module's layers, faster on a CPU, if its weights do not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Layer = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["quicken"]

_ROWS: Final = 16
"""For how many rows the layout of packed weights is chosen; it serves any number."""
_DTYPES: Final = (torch.float32, torch.bfloat16)
_LINEAR: Final = {
    "torch.nn.modules.linear.Linear": False,
    "transformers.pytorch_utils.Conv1D": True,
}
"""The layers that are a product, and whether their weight is (in, out)."""
_ACTIVATED: Final = {
    "transformers.models.gpt2.modeling_gpt2.GPT2MLP": ("c_fc", "act"),
    "transformers.models.llama.modeling_llama.LlamaMLP": ("gate_proj", "act_fn"),
}
"""Of a part, the product and the activation that takes what it gives, and nothing else does."""
_FUSED: Final = {
    "transformers.activations.NewGELUActivation": ("gelu", "tanh"),
    "torch.nn.modules.activation.SiLU": ("swish", ""),
    "transformers.activations.SiLUActivation": ("swish", ""),
}
"""What oneDNN calls activations that it computes along with a product."""


def quicken(module: torch.nn.Module) -> None:
    """Let a module's linear layers use a copy of their weights in oneDNN's own layout.

    For a few rows that takes from a third to two thirds of the time.
    """
    if not _can_pack():
        return
    packed: dict[tuple[Any, ...], torch.Tensor] = {}
    """By a weight, which several layers may share: its address, its form, and whether it is turned."""
    fused: dict[int, tuple[str, str]] = {}
    """By the identity of a layer, the activation that it computes too."""
    part: Any
    for part in module.modules():
        if _kind(part) in _ACTIVATED:
            layer, activation = (getattr(part, name) for name in _ACTIVATED[_kind(part)])
            if _is_product(layer) and _kind(activation) in _FUSED:
                fused[id(layer)] = _FUSED[_kind(activation)]
                activation.forward = _same
    for part in filter(_is_product, module.modules()):
        weight, turned = part.weight.detach(), _LINEAR[_kind(part)]
        key = weight.data_ptr(), weight.shape, weight.stride(), turned
        if key not in packed:
            plain = weight.t().contiguous() if turned else weight
            packed[key] = torch.ops.mkldnn._reorder_linear_weight(plain, _ROWS)  # noqa: SLF001  # torch's compiler uses it so
        part.forward = _linear(packed[key], part.bias, *fused.get(id(part), ("none", "")))


def _is_product(part: Any) -> bool:
    return _kind(part) in _LINEAR and part.weight.dtype in _DTYPES


def _kind(part: torch.nn.Module) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _linear(
    packed: torch.Tensor, bias: torch.Tensor | None, activation: str, variant: str
) -> Layer:
    product = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001  # torch's compiler uses it so

    def linear(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = product(x, packed, bias, activation, [], variant)
        return result

    return linear


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _can_pack() -> bool:
    """Say whether this torch has what its compiler calls for the same purpose."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch left it unannotated
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)
