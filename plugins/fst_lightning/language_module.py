"""The module that Lightning trains: next-id prediction around any language model."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from fst_core.errors import FstError, UserError
from fst_lightning.checkpoints import load_module, module_tensors
from fst_lightning.division import STRATEGY, Divided, divide, entire, gathered
from fst_lightning.loss import ChunkedLoss, summed_loss, summed_unlikelihood
from fst_lightning.memory import is_out_of_memory
from fst_lightning.optimizer import adamw, load_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fst_lightning.batches import MicroBatch
    from fst_lightning.schedule import Schedule
    from fst_lightning.settings import LightningSettings

__all__ = ["LanguageModule"]

_MANY_LOGITS = 2**26
"""Logits of a batch, 256 MiB in fp32, from which on they are computed in chunks."""
_SKIPS = 3
"""Steps in a row that are skipped at most: then it is not the samples of one step that are at fault."""


class LanguageModule(pl.LightningModule):
    """Trains a module with AdamW on the mean loss over all target ids of a step.

    A step's loss is the sum over the targets of all its batches, in all processes, divided by their
    number: long and short batches of an accumulated step count by their ids.
    """

    def __init__(
        self,
        module: nn.Module,
        settings: LightningSettings,
        schedule: Schedule,
        *,
        learning_rate: float,
    ) -> None:
        super().__init__()
        self.module = module
        """What is trained: the module that was given, or a copy whose weights are divided."""
        self._given = [module]  # in a list, so that its parameters are not taken for this one's
        self.settings = settings
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.accumulate = settings.lightning.accumulate_grad_batches
        self.resumed: tuple[int, Mapping[str, torch.Tensor]] = (0, {})
        """The step that training goes on from, and the optimizer's tensors after it."""
        self.pieces = 1
        """Into how many pieces the rows of a batch are divided, so that they fit into memory."""
        self.rewind: Callable[[], None] = _nothing
        """Puts generators and buffers back to where the last completed step left them."""
        self.tell: Callable[[str], None] = _nothing_of
        """Shows the user a line."""
        self.stepping = False
        """Whether the optimizer may be changing weights right now."""
        self.figures: dict[str, float] = {}
        """Of the last step: loss, learning_rate, gradient_norm."""
        self.skips = 0
        """Steps in a row, the last one among them, that changed no weights because they were not finite."""
        self.targets = 0
        """The number of target ids of the current step."""
        self.tokens = self.size = 0
        """The ids of all batches so far, without padding and with it."""
        self.valid_loss = 0.0
        """The mean loss over all target ids of the last validation."""
        self.valid_sum = 0.0
        """That loss, summed."""
        self._batches: list[MicroBatch] = []  # of the current step
        self._losses: list[torch.Tensor] = []  # of their pieces, each (), by targets
        self._valid = (0.0, 0)
        self._chunked: ChunkedLoss | None = None

    @property
    def alone(self) -> bool:
        """Whether no other process takes part: then nobody waits if a step is done again."""
        return isinstance(self.trainer.strategy, SingleDeviceStrategy)

    @property
    def is_divided(self) -> bool:
        """Whether each process has but a share of the weights."""
        return self.module is not self._given[0]

    def configure_model(self) -> None:
        """Divide the weights of a copy among the processes, if that is how they train."""
        if isinstance(self.trainer.strategy, Divided) and not self.is_divided:
            assert self.device_mesh is not None
            self.module = copy.deepcopy(self._given[0])
            divide(self.module, self.device_mesh["data_parallel"])

    def gather(self) -> None:
        """Bring the given module of the first process up to date, if a copy is trained; all must ask."""
        if self.is_divided:
            leads = self.global_rank == 0
            tensors = gathered(module_tensors(self.module), keep=leads)
            if leads:
                load_module(self._given[0], tensors)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, both after the step that training goes on from."""
        step, tensors = self.resumed
        optimizer = adamw(self.module, self.settings, self.learning_rate)
        load_optimizer(optimizer, self.module, tensors)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule, last_epoch=step - 1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_fit_start(self) -> None:
        """See whether the loss can be computed in chunks.

        Raises:
            UserError: it cannot, and the settings ask for it.
        """
        wanted = self.settings.chunked_loss
        if self.is_divided:  # the last layer's weights are whole while the module computes alone
            if wanted is True:
                raise UserError(
                    f'[trainer] chunked_loss: not with strategy = "{STRATEGY}". Leave it out'
                )
            return
        if wanted is not False and not self.settings.unlikelihood_alpha:
            self._chunked = ChunkedLoss.of(self.module)
        if wanted is True and self._chunked is None:
            raise UserError(
                "[trainer] chunked_loss: this model has no plain linear last layer. Leave it out"
            )

    def training_step(self, batch: MicroBatch, batch_index: int) -> torch.Tensor:
        """Return the batch's share of the step's loss."""
        if batch_index % self.accumulate == 0:
            self._begin_step()
        self._batches.append(batch)
        self.targets = batch.targets
        self.tokens += batch.tokens
        self.size += batch.size
        if not self.alone:
            loss = self._loss(batch.ids, batch.labels) / max(1, batch.targets)
            self._losses.append(loss.detach())
            # Lightning divides by the batches of a step, and averages over the processes.
            return loss * self.accumulate * self.trainer.world_size
        todo = [batch]
        while not self._learned(todo):
            self._halve()
            todo = self._batches
        return torch.stack(self._losses).sum()

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Go back through a batch, unless its training step has done it."""
        if loss.requires_grad:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch's

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """Lightning asks for it between the forward and the backward pass of a step's first batch."""
        if not self.alone:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the whole step's gradient, or drop it; the weights have not changed yet.

        Raises:
            FstError: the loss or the gradient is not finite, and the step is not to be skipped.
        """
        trained = [p for p in self.module.parameters() if p.grad is not None]
        norm = entire(nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None]))
        shares = torch.stack(self._losses).sum()
        if not self.alone:
            shares = self.trainer.strategy.reduce(shares, reduce_op="sum")
        loss, size = torch.stack([shares, norm]).tolist()
        rate = float(optimizer.param_groups[0]["lr"])
        self.figures = {"loss": loss, "learning_rate": rate, "gradient_norm": size}
        if not (math.isfinite(loss) and math.isfinite(size)):
            self._skip(loss, size)
            return
        self.skips = 0
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
        for ids, labels in _divided(batch, self.pieces):
            total += self._likelihood(ids, labels).item()
        self._valid = (total, targets + batch.targets)

    def on_validation_epoch_end(self) -> None:
        """Sum up a validation, over all processes."""
        total, targets = self._valid
        if not self.alone:
            share = torch.tensor(total, dtype=torch.float64, device=self.device)
            total = self.trainer.strategy.reduce(share, reduce_op="sum").item()
        self.valid_sum = total
        self.valid_loss = total / max(1, targets)

    def _begin_step(self) -> None:
        self._batches, self._losses = [], []
        if self.alone:
            self.module.zero_grad()

    def _learned(self, batches: list[MicroBatch]) -> bool:
        """Add the gradients of batches; return False, with what was added, if memory is too short."""
        try:
            for batch in batches:
                for ids, labels in _divided(batch, self.pieces):
                    loss = self._loss(ids, labels) / max(1, batch.targets)
                    loss.backward()  # type: ignore[no-untyped-call]  # torch's
                    self._losses.append(loss.detach())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _halve(self) -> None:
        """Begin the step anew with batches in smaller pieces.

        Raises:
            FstError: there are none.
        """
        rows = max(len(batch.ids) for batch in self._batches)
        if self.pieces >= rows:
            raise FstError(
                f"step {self.trainer.global_step + 1}: not even one sample of "
                f"{self._batches[-1].ids.shape[1]} ids fits into memory. Set gradient_checkpointing, "
                "lower [dataset] max_sample_length, or take a smaller model"
            )
        self.pieces *= 2
        self._losses = []
        self.module.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.rewind()
        self.tell(
            f"step {self.trainer.global_step + 1}: out of memory. From here on a batch is computed in "
            f"{self.pieces} pieces of at most {-(-rows // self.pieces)} samples; a step learns from the "
            "same samples as before"
        )

    def _loss(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        alpha = self.settings.unlikelihood_alpha
        if not alpha:
            return self._likelihood(ids, labels)
        logits = self.module(input_ids=ids, use_cache=False).logits
        return summed_loss(logits, labels) + alpha * summed_unlikelihood(logits, ids, labels)

    def _likelihood(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._in_chunks(ids) and self._chunked is not None:
            return self._chunked(ids, labels)
        return summed_loss(self.module(input_ids=ids, use_cache=False).logits, labels)

    def _in_chunks(self, ids: torch.Tensor) -> bool:
        chunked = self._chunked
        if chunked is None:
            return False
        if (
            self.settings.chunked_loss == "auto"
            and ids.numel() * chunked.vocabulary <= _MANY_LOGITS
        ):
            return False
        if not chunked.is_checked and not chunked.agrees(ids[:1]):
            if self.settings.chunked_loss is True:
                raise UserError(
                    "[trainer] chunked_loss: this model changes its logits behind its last layer. "
                    "Leave it out"
                )
            self._chunked = None
        return self._chunked is not None

    def _skip(self, loss: float, norm: float) -> None:
        """Let a step that is not finite change nothing: AdamW passes over what has no gradient.

        Raises:
            FstError: it is not to be skipped, or too many before it were.
        """
        samples = torch.cat([batch.indices for batch in self._batches]).tolist()
        shown = ", ".join(map(str, samples[:16])) + (", ..." if len(samples) > 16 else "")
        said = (
            f"step {self.trainer.global_step + 1}: the loss is {loss:g} and the gradient's norm "
            f"{norm:g}, with training samples {shown}"
        )
        if self.settings.on_nan == "stop" or self.skips == _SKIPS:
            after = f", after {self.skips} such steps in a row" if self.skips else ""
            raise FstError(f"{said}{after}. Lower learning_rate, or raise num_warmup_steps")
        self.skips += 1
        self.module.zero_grad()
        self.tell(f"{said}. The step is skipped; no weights change")


def _divided(batch: MicroBatch, pieces: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the rows of a batch, ids and labels, in pieces."""
    return zip(batch.ids.chunk(pieces), batch.labels.chunk(pieces), strict=True)


def _nothing() -> None:
    pass


def _nothing_of(line: str) -> None:
    pass
