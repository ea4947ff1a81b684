"""The batches that Lightning iterates over; a dataset is a memory map, so no workers are needed."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch

from fst_core.dataset import IGNORED, Batching, collate, longest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fst_core.dataset import Batch, Samples
    from fst_lightning.settings import LightningSettings

__all__ = ["MicroBatch", "TrainingBatches", "ValidationBatches"]


class MicroBatch(NamedTuple):
    """A batch of a step, which sees several of them where gradients are accumulated.

    Where several processes train, `ids` and `labels` are this one's share of its rows; the rest is
    of the whole batch.
    """

    ids: torch.Tensor
    """(B, T) int64."""
    labels: torch.Tensor
    """(B, T) int64, IGNORED in place of padding; not shifted."""
    indices: torch.Tensor
    """(all rows,) int64, which samples these are."""
    targets: int
    """The number of ids to predict in all batches of the step."""
    tokens: int
    """The ids that are not padding."""
    size: int
    """The ids, padding included."""


class TrainingBatches:
    """The batches of an epoch, a pure function of the seed and the epoch; can begin at any step.

    `epoch` says which epoch it is when a batch is asked for; `limit` is Lightning's
    `limit_train_batches`: a number of batches, or a share of them; with `repeat`, every epoch has
    the batches of the first; `rank` and `world` say which process this is, of how many.
    """

    def __init__(
        self,
        samples: Samples,
        settings: LightningSettings,
        seed: int,
        *,
        epoch: Callable[[], int],
        limit: float,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.samples = samples
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world = world
        self.repeat = settings.lightning.overfit_batches > 0
        self.accumulate = settings.lightning.accumulate_grad_batches
        self.batching = Batching(
            samples,
            None if settings.batch_tokens else settings.batch_size,
            batch_tokens=settings.batch_tokens,
            accumulate=self.accumulate,
        )
        whole = len(self)
        self.count = min(limit, whole) if isinstance(limit, int) else int(limit * whole)
        """The batches of an epoch, within the limit."""
        self.waited = 0.0
        """Seconds that training has waited for batches."""
        self._start = (0, 0)

    def __len__(self) -> int:
        """Return the number of all batches; Lightning applies the limit to it."""
        return len(self.batching)

    def __iter__(self) -> Iterator[MicroBatch]:
        # Lightning asks for an iterator before it knows the epoch, and for its batches afterwards.
        epoch = self.epoch()
        first = self._start[1] if epoch == self._start[0] else 0
        left = max(self.count - first, 0)
        asked = time.perf_counter()
        for step in self.batching.steps(self.seed, 0 if self.repeat else epoch, first):
            batches = [collate(self.samples, indices) for indices in islice(step, left)]
            left -= len(batches)
            targets = sum(map(_targets, batches))
            for batch in batches:
                micro = _micro_batch(batch, targets, self.rank, self.world)
                self.waited += time.perf_counter() - asked
                yield micro
                asked = time.perf_counter()
            if not left:
                return

    def state_dict(self) -> dict[str, int]:
        """Return where the first epoch begins; with it, Lightning knows that this can be resumed."""
        return {"epoch": self._start[0], "batch": self._start[1]}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Begin an epoch at one of its batches, the first of a step."""
        self._start = (state["epoch"], state["batch"])


class ValidationBatches:
    """All samples once, longest first."""

    def __init__(
        self, samples: Samples, settings: LightningSettings, rank: int = 0, world: int = 1
    ) -> None:
        self.samples = samples
        self.rank = rank
        self.world = world
        size = None if settings.batch_tokens else settings.batch_size
        self._batches = longest_first(samples, size, batch_tokens=settings.batch_tokens)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[MicroBatch]:
        for indices in self._batches:
            batch = collate(self.samples, indices)
            yield _micro_batch(batch, _targets(batch), self.rank, self.world)


def _targets(batch: Batch) -> int:
    """Count the ids to predict: all but the first of each sample."""
    return int((batch.labels[:, 1:] != IGNORED).sum())


def _micro_batch(batch: Batch, targets: int, rank: int, world: int) -> MicroBatch:
    ids, labels, indices = map(torch.from_numpy, (batch.ids, batch.labels, batch.indices))
    size = ids.numel()
    if world > 1:
        ids, labels = ids[rank::world], labels[rank::world]
        if not len(ids):  # fewer rows than processes: one that teaches nothing, since all take part
            ids, labels = torch.zeros(1, 2, dtype=ids.dtype), torch.full((1, 2), IGNORED)
    return MicroBatch(ids, labels, indices, targets, batch.tokens, size)
