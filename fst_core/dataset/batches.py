"""Batches of samples of about the same length, in an order that is a function of seed and epoch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from fst_core.dataset.samples import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from fst_core.dataset.samples import Samples

__all__ = [
    "IGNORED",
    "Batch",
    "Batching",
    "collate",
    "epoch_batches",
    "longest_first",
    "ordered_batches",
]

_BUCKETS = 16
"""Buckets of length from one power of two to the next: within one, lengths differ by 4.4 % at most."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples side by side, padded at their ends."""

    ids: NDArray[np.int64]
    """(B, T) ids; padding is 0: with causal attention, what stands behind a text is never seen by it."""
    labels: NDArray[np.int64]
    """(B, T) the same ids, with IGNORED in place of padding and what carries no loss; not shifted."""
    indices: NDArray[np.int64]
    """(B,) which samples these are."""
    tokens: int
    """The number of ids that are not padding."""


class Batching:
    """How samples are dealt out to the steps of an epoch, and a step's samples to its batches.

    Those of a step are about equally long, so that little is padded, and steps have about equally
    many ids, so that one teaches as much as another; what fills no step, the shortest samples, is the
    epoch's last. Which samples of a length meet in a step, and in which order the steps come, is a
    pure function of seed and epoch. A step is the same however many batches it has. Where less than
    5 % is padding anyway, samples meet whatever their lengths.

    Args:
        samples: a split.
        batch_size: samples of a batch on average: as many ids as so many samples of mean length; or
        batch_tokens: the most ids of a batch, padding included; a longer sample is alone in its batch.
        accumulate: batches of a step.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int | None = None,
        *,
        batch_tokens: int | None = None,
        accumulate: int = 1,
    ) -> None:
        lengths = samples.lengths()
        self._buckets = (np.log2(np.maximum(lengths, 1)) * _BUCKETS).astype(np.int16)
        self._alike = not len(lengths) or bool(lengths.mean() > 0.95 * lengths.max())
        if self._alike:
            self._buckets[:] = 0
        self._accumulate = accumulate
        # Of a bucket any sample may stand first, so all count as long as its longest.
        longest = np.zeros(int(self._buckets.max(initial=0)) + 1, np.int64)
        np.maximum.at(longest, self._buckets, lengths)
        falling = longest[np.sort(self._buckets)[::-1]]
        ids = (batch_size or 0) * accumulate * float(lengths.mean()) if len(lengths) else 0.0

        def size(length: int) -> int:
            if batch_tokens is not None:
                return max(1, batch_tokens // length) * accumulate
            return max(accumulate, round(ids / length))

        self._starts, self._sizes = _cut(falling, size)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return max(len(self._sizes) - 1, 0) * self._accumulate + self._last()

    def steps(self, seed: int, epoch: int, first: int = 0) -> Iterator[list[NDArray[np.int64]]]:
        """Yield the sample indices of each batch, step by step, from batch `first` on, which begins a step."""
        rng = np.random.default_rng([seed, epoch])
        shuffled = rng.permutation(len(self._buckets))
        order = shuffled[np.argsort(-self._buckets[shuffled], kind="stable")]
        last = len(self._sizes) - 1
        turns = list(range(last + 1))
        if not self._alike:
            turns[:-1] = rng.permutation(last)
        for step in turns[first // self._accumulate :]:
            indices = order[self._starts[step] : self._starts[step + 1]]
            yield np.array_split(indices, self._last() if step == last else self._accumulate)

    def _last(self) -> int:
        """Return the batches of the last step, which may have fewer samples than it should."""
        if not len(self._sizes):
            return 0
        samples = int(self._starts[-1] - self._starts[-2])
        return -(-samples * self._accumulate // int(self._sizes[-1]))


def epoch_batches(
    samples: Samples, batch_size: int, seed: int, epoch: int, first: int = 0
) -> Iterator[Batch]:
    """Yield an epoch's batches from the `first` on: each sample once, shuffled.

    They are a pure function of the seed and the epoch, and beginning at a later one costs nothing.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(samples))
    for begin in range(first * batch_size, len(order), batch_size):
        yield collate(samples, order[begin : begin + batch_size])


def ordered_batches(samples: Samples, batch_size: int) -> Iterator[Batch]:
    """Yield all samples once, longest first, so that little is padded and memory peaks at the start."""
    for indices in longest_first(samples, batch_size):
        yield collate(samples, indices)


def longest_first(
    samples: Samples, batch_size: int | None = None, *, batch_tokens: int | None = None
) -> list[NDArray[np.int64]]:
    """Return the sample indices of the batches of all samples, longest first."""
    lengths = samples.lengths()
    order = np.argsort(-lengths, kind="stable")
    starts, _ = _cut(
        lengths[order], lambda length: batch_size or max(1, (batch_tokens or 0) // length)
    )
    return [order[begin:end] for begin, end in pairwise(starts)]


def collate(samples: Samples, indices: NDArray[np.int64]) -> Batch:
    """Put samples side by side, padded to the longest of them."""
    rows = [samples[int(i)] for i in indices]
    shape = (len(rows), max(map(len, rows)))
    ids = np.zeros(shape, np.int64)
    labels = np.full(shape, IGNORED, np.int64)
    for row, sample in enumerate(rows):
        ids[row, : len(sample)] = sample
        labels[row, : len(sample)] = samples.labels(int(indices[row]))
    return Batch(ids, labels, indices, sum(map(len, rows)))


def _cut(falling: NDArray[Any], size: Callable[[int], int]) -> tuple[list[int], list[int]]:
    """Cut samples, given by their lengths from the longest on.

    Args:
        falling: (samples,) the lengths.
        size: how many samples a part has that begins with one of a length.

    Returns:
        starts: where each part begins, the last one the end.
        sizes: how many samples each should have; the last one may have fewer.
    """
    starts, sizes = [0], []
    while starts[-1] < len(falling):
        sizes.append(size(int(falling[starts[-1]])))
        starts.append(min(starts[-1] + sizes[-1], len(falling)))
    return starts, sizes
