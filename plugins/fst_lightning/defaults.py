"""What is chosen where the settings say nothing: learning rate, warm-up, dropout."""

from __future__ import annotations

import math
import tomllib
from typing import TYPE_CHECKING

import torch
from torch import nn

from fst_lightning.loss import summed_loss

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core.dataset import Batch
    from fst_lightning.settings import LightningSettings

__all__ = ["learning_rate", "longest_warmup", "set_dropout"]

_FINE_TUNING = 5e-5
_FEW_TRAINED = 2e-4
_LOWEST = 1e-4
_EPOCHS_AS_GOOD_AS_NEW = 4


def learning_rate(module: nn.Module, batch: Batch) -> float:
    """Return a learning rate for AdamW.

    From scratch by the parameters N that are no embeddings: 0.003239 - 0.0001395 ln(N) (Kaplan et
    al. 2020, appendix D.6). A module that has been trained before gets 5e-5 (Devlin et al. 2019),
    or 2e-4 where few of its parameters train (LoRA: Hu et al. 2021, table 11). It has been, if it
    predicts a first batch better than one that knows nothing could.
    """
    # Of a parameter that says `no_weight_decay`, a few rows train.
    whole = (p for p in module.parameters() if not getattr(p, "no_weight_decay", False))
    trained = sum(p.numel() for p in whole if p.requires_grad)
    if trained < 0.1 * sum(p.numel() for p in module.parameters()):
        return _FEW_TRAINED
    if _first_loss(module, batch) < 0.8 * math.log(_embedded(module) or 2):
        return _FINE_TUNING
    inner = max(trained - _embedding_parameters(module), 1)
    return max(_LOWEST, 0.003239 - 0.0001395 * math.log(inner))


def longest_warmup(settings: LightningSettings) -> int:
    """Return the steps after which AdamW's mean of squares is steady (Ma & Yarats 2021)."""
    return math.ceil(2 / (1 - settings.betas[1]) - 1e-6)


def set_dropout(
    module: nn.Module, settings: LightningSettings, directory: Path, epochs: float
) -> float | None:
    """Set a module's dropout as the settings say, and return what was set; None: the model's own holds.

    Text that is seen four times at most is nearly as good as new each time (Muennighoff et al.
    2023), and is not learned by heart. What a pipeline's [model] says of dropout always holds.
    """
    if settings.dropout == "model":
        return None
    if isinstance(settings.dropout, float):
        chosen = settings.dropout
    elif epochs <= _EPOCHS_AS_GOOD_AS_NEW and _is_free(directory / "pipeline.toml"):
        chosen = 0.0
    else:
        return None
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Dropout)]
    if not layers or all(layer.p == chosen for layer in layers):
        return None
    for layer in layers:
        layer.p = chosen
    return chosen


def _is_free(file: Path) -> bool:
    """Return whether a pipeline builds a model from scratch and leaves its dropout open."""
    try:
        model = tomllib.loads(file.read_text("utf-8")).get("model", {})
    except (OSError, ValueError):
        return False
    return "path" not in model and not any("drop" in name for name in model)


@torch.no_grad()
def _first_loss(module: nn.Module, batch: Batch) -> float:
    ids, labels = torch.from_numpy(batch.ids), torch.from_numpy(batch.labels)
    trains = module.training
    logits = module.eval()(input_ids=ids, use_cache=False).logits
    module.train(trains)
    return summed_loss(logits, labels).item() / max(1, int((batch.labels[:, 1:] >= 0).sum()))


def _embedded(module: nn.Module) -> int:
    """Return the largest number of ids that an embedding knows."""
    return max(
        (m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)), default=0
    )


def _embedding_parameters(module: nn.Module) -> int:
    weights = {id(m.weight): m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    return sum(weight.numel() for weight in weights.values() if weight.requires_grad)
