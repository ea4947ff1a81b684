"""LoRA (Hu et al. 2022, Low-Rank Adaptation of Large Language Models): small matrices learn, by `peft`."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

from transformers.pytorch_utils import Conv1D

from fst_core.errors import MissingDependency, UserError, one_line

if TYPE_CHECKING:
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
