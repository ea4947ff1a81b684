"""Frozen weights: which parts of a pretrained module are not trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from fst_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from transformers import PreTrainedModel

__all__ = ["freeze_layers", "train_rows"]


def freeze_layers(module: PreTrainedModel, number: int) -> None:
    """Freeze the embeddings and the first layers, with the adapters in them, if there are any.

    Raises:
        UserError: the module has fewer layers.
    """
    layers = _layers(module)
    if number > len(layers):
        raise UserError(f"[model] freeze_n_layers = {number}: the model has {len(layers)} layers")
    embeddings = (each for each in module.modules() if isinstance(each, nn.Embedding))
    for part in (*embeddings, *layers[:number]):
        part.requires_grad_(requires_grad=False)


def train_rows(parameters: Iterable[torch.Tensor], first: int) -> None:
    """Train the rows of frozen parameters from `first` on, and those alone: the others get no gradient.

    An optimizer that makes weights smaller without one would move them all the same, so the parameters
    have the attribute `no_weight_decay`.
    """

    def masked(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient[:first] = 0
        return gradient

    for parameter in parameters:
        if not parameter.requires_grad:
            parameter.no_weight_decay = True  # type: ignore[attr-defined]  # for whoever makes the optimizer
            parameter.requires_grad_(True).register_hook(masked)  # type: ignore[no-untyped-call]  # torch's own has no types


def _layers(module: PreTrainedModel) -> list[nn.Module]:
    """Return the layers of a module, from the embeddings on."""
    number = module.config.num_hidden_layers
    lists = (each for each in module.modules() if isinstance(each, nn.ModuleList))
    return next(([*each] for each in lists if len(each) == number), [])
