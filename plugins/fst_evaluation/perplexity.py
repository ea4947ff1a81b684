"""The evaluator `perplexity`: how well a model predicts the validation samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from fst_core import Evaluator
from fst_core.dataset import IGNORED, ordered_batches
from fst_evaluation.device import device

if TYPE_CHECKING:
    from fst_core.artefacts import LoadedModel
    from fst_core.dataset import Dataset, Samples
    from fst_evaluation.settings import PerplexitySettings

__all__ = ["PerplexityEvaluator"]


class PerplexityEvaluator(Evaluator):
    """Measures the loss of the predicted ids of all validation samples, each seen alone.

    Bits per byte compare models of different tokenizers: the summed loss in bits, over the UTF-8
    bytes of the text in the samples. A lossy tokenizer has none.

    Raises:
        UserError: the device that the settings name is not here.
    """

    def __init__(self, settings: PerplexitySettings) -> None:
        self.settings = settings
        self._device = device(settings.device)

    def evaluate(self, model: LoadedModel, dataset: Dataset) -> dict[str, float | None]:
        """Return `loss` (nats an id), `perplexity` and `bits_per_byte` on the validation split."""
        module = model.module.to(self._device)
        loss, count = _summed_loss(module, dataset.valid, self.settings.batch_size, self._device)
        mean = loss / count if count else math.nan
        bits = loss / math.log(2)
        measured = not model.tokenizer.lossy and dataset.valid.text_bytes > 0
        return {
            "loss": mean,
            "perplexity": math.exp(min(mean, 700)),  # e**710 is past a float64
            "bits_per_byte": bits / dataset.valid.text_bytes if measured else None,
        }


def _summed_loss(
    module: torch.nn.Module, samples: Samples, batch_size: int, device: torch.device
) -> tuple[float, int]:
    """Return the summed loss of all predicted ids, in nats, and how many they are."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in ordered_batches(samples, batch_size):
            ids = torch.from_numpy(batch.ids).to(device)  # (B, T)
            labels = torch.from_numpy(batch.labels)[:, 1:].to(device)
            logits = module(input_ids=ids).logits[:, :-1].float()  # (B, T - 1, V)
            losses = cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
            )
            total += losses.cpu().double().sum().item()  # MPS has no float64
            count += int((labels != IGNORED).sum())
    return total, count
