"""The batches that Lightning iterates over; a dataset is a memory map, so no workers are needed."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch

from fst_core.dataset import IGNORED, epoch_batches, ordered_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fst_core.dataset import Batch, Samples

__all__ = ["MicroBatch", "TrainingBatches", "ValidationBatches"]


class MicroBatch(NamedTuple):
    """A batch of a step, which sees several of them where gradients are accumulated."""

    ids: torch.Tensor
    """(B, T) int64."""
    labels: torch.Tensor
    """(B, T) int64, IGNORED in place of padding; not shifted."""
    indices: torch.Tensor
    """(B,) int64, which samples these are."""
    targets: int
    """The number of ids to predict in all batches of the step."""


class TrainingBatches:
    """The batches of an epoch, a pure function of the seed and the epoch; can begin at any step.

    `epoch` says which epoch it is when a batch is asked for; `limit` is Lightning's
    `limit_train_batches`: a number of batches, or a share of them; with `repeat`, every epoch has
    the batches of the first.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed: int,
        *,
        epoch: Callable[[], int],
        accumulate: int,
        limit: float,
        repeat: bool = False,
    ) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.accumulate = accumulate
        self.repeat = repeat
        whole = len(self)
        self.count = min(limit, whole) if isinstance(limit, int) else int(limit * whole)
        """The batches of an epoch, within the limit."""
        self._start = (0, 0)

    def __len__(self) -> int:
        """Return the number of all batches; Lightning applies the limit to it."""
        return math.ceil(len(self.samples) / self.batch_size)

    def __iter__(self) -> Iterator[MicroBatch]:
        # Lightning asks for an iterator before it knows the epoch, and for its batches afterwards.
        epoch = self.epoch()
        first = self._start[1] if epoch == self._start[0] else 0
        order = 0 if self.repeat else epoch
        batches = epoch_batches(self.samples, self.batch_size, self.seed, order, first)
        rest = islice(batches, max(self.count - first, 0))
        while step := list(islice(rest, self.accumulate)):
            targets = sum(map(_targets, step))
            yield from (_micro_batch(batch, targets) for batch in step)

    def state_dict(self) -> dict[str, int]:
        """Return where the first epoch begins; with it, Lightning knows that this can be resumed."""
        return {"epoch": self._start[0], "batch": self._start[1]}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin an epoch at one of its batches, the first of a step."""
        self._start = (state["epoch"], state["batch"])


class ValidationBatches:
    """All samples once, longest first."""

    def __init__(self, samples: Samples, batch_size: int) -> None:
        self.samples = samples
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.samples) / self.batch_size)

    def __iter__(self) -> Iterator[MicroBatch]:
        for batch in ordered_batches(self.samples, self.batch_size):
            yield _micro_batch(batch, _targets(batch))


def _targets(batch: Batch) -> int:
    """Count the ids to predict: all but the first of each sample."""
    return int((batch.labels[:, 1:] != IGNORED).sum())


def _micro_batch(batch: Batch, targets: int) -> MicroBatch:
    ids, labels, indices = map(torch.from_numpy, (batch.ids, batch.labels, batch.indices))
    return MicroBatch(ids, labels, indices, targets)
