"""The module that Lightning trains: next-id prediction around any language model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from fst_core.dataset import IGNORED
from fst_core.errors import FstError
from fst_lightning.optimizer import adamw, load_optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_lightning.batches import MicroBatch
    from fst_lightning.schedule import Schedule
    from fst_lightning.settings import LightningSettings

__all__ = ["LanguageModule", "summed_loss"]


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross entropy of each next id: (B, T, V), (B, T) int64 -> (), float32."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED)  # the last position predicts nothing
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )


class LanguageModule(pl.LightningModule):
    """Trains a module with AdamW on the mean loss over all target ids of a step.

    A step's loss is the sum over the targets of all its batches, divided by their number: long and
    short batches of an accumulated step count by their ids.
    """

    def __init__(
        self, module: nn.Module, settings: LightningSettings, schedule: Schedule, accumulate: int
    ) -> None:
        super().__init__()
        self.module = module
        self.settings = settings
        self.schedule = schedule
        self.accumulate = accumulate
        self.resumed: tuple[int, Mapping[str, torch.Tensor]] = (0, {})
        """The step that training goes on from, and the optimizer's tensors after it."""
        self.stepping = False
        """Whether the optimizer may be changing weights right now."""
        self.figures: dict[str, float] = {}
        """Of the last step: loss, learning_rate, gradient_norm."""
        self.targets = 0
        """The number of target ids of the current step."""
        self._losses: list[torch.Tensor] = []  # of the current step's batches, each (), by targets
        self._indices: list[torch.Tensor] = []
        self._valid = (0.0, 0)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, both after the step that training goes on from."""
        step, tensors = self.resumed
        optimizer = adamw(self.module, self.settings)
        load_optimizer(optimizer, self.module, tensors)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule, last_epoch=step - 1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def training_step(self, batch: MicroBatch, batch_index: int) -> torch.Tensor:
        """Return the batch's share of the step's loss."""
        if batch_index % self.accumulate == 0:
            self._losses, self._indices = [], []
        self.targets = batch.targets
        loss = self._loss(batch) / max(1, batch.targets)
        self._losses.append(loss.detach())
        self._indices.append(batch.indices)
        return loss * self.accumulate  # Lightning divides by it

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the whole step's gradient; the weights have not changed yet.

        Raises:
            FstError: the loss or the gradient is not finite.
        """
        trained = [p for p in self.module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        loss, size = torch.stack([torch.stack(self._losses).sum(), norm]).tolist()
        rate = float(optimizer.param_groups[0]["lr"])
        self.figures = {"loss": loss, "learning_rate": rate, "gradient_norm": size}
        if not (math.isfinite(loss) and math.isfinite(size)):
            raise FstError(self._diverged(loss, size))
        if gradient_clip_val and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(trained, gradient_clip_val)
        elif gradient_clip_val:
            nn.utils.clip_grads_with_norm_(trained, gradient_clip_val, norm)
        self.stepping = True

    def on_validation_epoch_start(self) -> None:
        """Begin a validation."""
        self._valid = (0.0, 0)

    def validation_step(self, batch: MicroBatch) -> None:
        """Add a batch to the validation."""
        total, targets = self._valid
        self._valid = (total + self._loss(batch).item(), targets + batch.targets)

    @property
    def valid_loss(self) -> float:
        """The mean loss over all target ids of the last validation."""
        total, targets = self._valid
        return total / max(1, targets)

    def _loss(self, batch: MicroBatch) -> torch.Tensor:
        logits = self.module(input_ids=batch.ids, use_cache=False).logits
        return summed_loss(logits, batch.labels)

    def _diverged(self, loss: float, norm: float) -> str:
        samples = torch.cat(self._indices).tolist()
        shown = ", ".join(map(str, samples[:16])) + (", ..." if len(samples) > 16 else "")
        return (
            f"step {self.trainer.global_step + 1}: the loss is {loss:g} and the gradient's norm "
            f"{norm:g}, with training samples {shown}. Lower learning_rate, or raise num_warmup_steps"
        )
