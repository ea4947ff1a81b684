"""Batches of samples, padded to their longest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fst_core.dataset.samples import Samples

__all__ = ["IGNORED", "Batch", "epoch_batches", "ordered_batches"]

IGNORED = -100
"""The label of padding, which torch's cross entropy leaves out."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples side by side, padded at their ends."""

    ids: NDArray[np.int64]
    """(B, T) ids; padding is 0: with causal attention, what stands behind a text is never seen by it."""
    labels: NDArray[np.int64]
    """(B, T) the same ids, with IGNORED in place of padding; not shifted."""
    indices: NDArray[np.int64]
    """(B,) which samples these are."""

    @property
    def tokens(self) -> int:
        """The number of ids that are not padding."""
        return int((self.labels != IGNORED).sum())


def epoch_batches(
    samples: Samples, batch_size: int, seed: int, epoch: int, first: int = 0
) -> Iterator[Batch]:
    """Yield an epoch's batches from the `first` on: each sample once, shuffled.

    They are a pure function of the seed and the epoch, and beginning at a later one costs nothing.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(samples))
    return _batches(samples, order[first * batch_size :], batch_size)


def ordered_batches(samples: Samples, batch_size: int) -> Iterator[Batch]:
    """Yield all samples once, longest first, so that little is padded and memory peaks at the start."""
    return _batches(samples, np.argsort(-samples.lengths(), kind="stable"), batch_size)


def _batches(samples: Samples, order: NDArray[Any], batch_size: int) -> Iterator[Batch]:
    for first in range(0, len(order), batch_size):
        indices = order[first : first + batch_size]
        rows = [samples[int(i)] for i in indices]
        shape = (len(rows), max(map(len, rows)))
        ids = np.zeros(shape, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        for row, sample in enumerate(rows):
            ids[row, : len(sample)] = labels[row, : len(sample)] = sample
        yield Batch(ids, labels, indices)
