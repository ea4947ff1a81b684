"""LoRA (Hu et al. 2022, Low-Rank Adaptation of Large Language Models): small matrices learn, by `peft`."""

from __future__ import annotations

import copy
import warnings
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F  # noqa: N812  # its usual name
from transformers.pytorch_utils import Conv1D

from fst_core.errors import MissingDependency, UserError, one_line

if TYPE_CHECKING:
    from peft.tuners.lora import Linear
    from transformers import PreTrainedModel

    from fst_transformers.settings import LoraSettings

__all__ = ["add_adapters", "merged"]

_SUFFIX = ".base_layer"
"""How peft calls the layer that an adapter lies beside."""


def add_adapters(module: PreTrainedModel, settings: LoraSettings) -> None:
    """Put adapters beside the module's matrices, in place; they alone are trained from here on.

    Their weights come from torch's generator; at first they change nothing.

    Raises:
        MissingDependency: the package `peft` is not installed.
        UserError: no layer has a name that the settings say.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import Linear
    except ImportError:
        raise MissingDependency(
            "[model.lora] needs peft. Install it: pip install 'full-stack-transformer[lora]'"
        ) from None
    targets = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # it is only ever divided by the rank
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        # GPT-2's matrices lie the other way round.
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in module.modules()),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice for other ways of using it
            inject_adapter_in_model(config, module)
    except ValueError as error:
        raise UserError(f"[model.lora] target_modules: {one_line(error)}") from None
    for layer in module.modules():
        if isinstance(layer, Linear):
            layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]  # see there


def merged(module: PreTrainedModel) -> PreTrainedModel:
    """Return the module with what its adapters learned added to its matrices; without any, itself.

    It is a copy: the module can be trained on, and merged again, without rounding twice.
    """
    if not any(name.endswith(_SUFFIX) for name, _ in module.named_modules()):
        return module
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(module)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            plain.set_submodule(name, layer.get_base_layer())
    return plain


def _forward(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """Return the layer's output with its adapter's, rounded once: (..., in) -> (..., out).

    `peft` adds the adapter's output to one of the layer that autocast has rounded already. What is
    less than half of a bf16's last place, as an adapter's output is at first, is rounded away.
    """
    weight, kind = layer.base_layer.weight, x.device.type
    if weight.requires_grad or not torch.is_autocast_enabled(kind):
        return type(layer).forward(layer, x)
    (name,) = layer.active_adapters
    x = x.to(torch.get_autocast_dtype(kind))
    inner = layer.lora_A[name](layer.lora_dropout[name](x))  # (..., rank)
    total: torch.Tensor = _Sum.apply(  # type: ignore[no-untyped-call]  # torch's
        x,
        inner,
        weight.T if layer.fan_in_fan_out else weight,
        layer.lora_B[name].weight * layer.scaling[name],
        layer.base_layer.bias,
    )
    return total


class _Sum(torch.autograd.Function):
    """x W^T + inner B^T + bias as one product, which adds in fp32; W and bias are not trained.

    x (..., in) and inner (..., rank) are of one dtype, which the rest is cast to: W (out, in),
    B (out, rank), bias (out,) or None.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  # a Function takes no keywords
        ctx: Any,
        x: torch.Tensor,
        inner: torch.Tensor,
        large: torch.Tensor,
        small: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(inner, large, small)
        matrix = torch.cat([large.to(x.dtype), small.to(x.dtype)], 1)
        return F.linear(
            torch.cat([x, inner], -1), matrix, None if bias is None else bias.to(x.dtype)
        )

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:
        (slope,) = slopes
        inner, large, small = ctx.saved_tensors
        d_x = slope @ large.to(slope.dtype) if ctx.needs_input_grad[0] else None
        d_small = slope.flatten(0, -2).T @ inner.flatten(0, -2)
        return d_x, slope @ small.to(slope.dtype), None, d_small.to(small.dtype), None
