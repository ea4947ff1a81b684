"""AdamW, and its state as named tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from fst_lightning.division import shared_like

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_lightning.settings import LightningSettings

__all__ = ["adamw", "load_optimizer", "optimizer_tensors"]


def adamw(
    module: nn.Module, settings: LightningSettings, learning_rate: float
) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019), fused, over the parameters that are trained.

    Matrices decay; biases, norms and embeddings do not: decay holds back the size of what is
    multiplied, and an embedding's row is not. A matrix tied to an embedding counts as one, and a
    parameter of which a model trains some rows alone says `no_weight_decay`.
    """
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in module.parameters() if p.requires_grad]

    def decays(p: nn.Parameter) -> bool:
        return p.ndim > 1 and id(p) not in embeddings and not getattr(p, "no_weight_decay", False)

    decayed = [p for p in trained if decays(p)]
    rest = [p for p in trained if not decays(p)]
    rate = {"lr": learning_rate, "initial_lr": learning_rate}
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay, **rate},
        {"params": rest, "weight_decay": 0.0, **rate},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], betas=settings.betas, fused=True
    )


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, module: nn.Module
) -> dict[str, torch.Tensor]:
    """Return the optimizer's state, named `<parameter>/<what>`; the settings have the rest of it."""
    return {
        f"{name}/{key}": tensor
        for name, parameter in module.named_parameters()
        for key, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Give a new optimizer the state that `optimizer_tensors` returned."""
    parameters = dict(module.named_parameters())
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][key] = shared_like(tensor.to(parameter.device), parameter)
