"""Writing a split: flat ids are cut into samples and streamed to .npy files of unknown length."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import numpy as np
from numpy.lib import format as npy

from fst_core.dataset.samples import CORPUS, LOSS, STARTS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SplitWriter", "cut"]


def cut(
    offsets: NDArray[np.int64], max_length: int, min_length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut documents into samples of at most `max_length` ids; a shorter rest than `min_length` is dropped.

    Args:
        offsets: (documents + 1,) where each document begins in flat ids, the last one their end.
        max_length: the most ids of a sample.
        min_length: the fewest.

    Returns:
        starts, ends: (samples,) each, of the kept samples in flat ids.
    """
    lengths = np.diff(offsets)
    whole, rest = np.divmod(lengths, max_length)
    count = whole + (rest >= min_length) * (rest > 0)
    first = np.cumsum(count) - count  # index of each document's first sample
    within = np.arange(int(count.sum())) - np.repeat(first, count)
    starts = np.repeat(offsets[:-1], count) + within * max_length
    ends = np.minimum(starts + max_length, np.repeat(offsets[1:], count))
    return starts, ends


_FILLED: Final = np.ones(2**16, np.uint8)


class SplitWriter:
    """Streams the samples of one split to disk; complete when closed without an error.

    Which ids carry loss is written from the first one on that carries none.
    """

    def __init__(self, directory: Path, dtype: np.dtype[Any]) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._corpus = _NpyWriter(directory / CORPUS, dtype)
        self._starts = _NpyWriter(directory / STARTS, np.dtype(np.int64))
        self._loss: _NpyWriter | None = None

    def write(
        self,
        ids: NDArray[np.integer[Any]],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        loss: NDArray[np.uint8] | None = None,
    ) -> None:
        """Append the samples `ids[start:end]`; `loss` says of each id whether it carries loss.

        Raises:
            OverflowError: an id does not fit the dtype of the vocabulary.
        """
        if not len(starts):
            return
        lengths = ends - starts
        at = self._corpus.count + np.cumsum(lengths) - lengths
        largest = int(ids.max())
        if largest > np.iinfo(self._corpus.dtype).max:
            raise OverflowError(
                f"id {largest} does not fit {self._corpus.dtype}: the tokenizer's vocab_size is wrong"
            )
        ids = ids.astype(self._corpus.dtype, copy=False)
        if int(lengths.sum()) < len(ids):  # something was dropped
            ids = _kept(ids, starts, ends)
            loss = None if loss is None else _kept(loss, starts, ends)
        self._write_loss(len(ids), loss)
        self._corpus.append(ids)
        self._starts.append(at)

    def _write_loss(self, count: int, loss: NDArray[np.uint8] | None) -> None:
        if self._loss is None:
            if loss is None or loss.all():
                return
            self._loss = _NpyWriter(self._directory / LOSS, np.dtype(np.uint8))
            self._loss.fill(self._corpus.count)
        if loss is None:
            self._loss.fill(count)
        else:
            self._loss.append(loss)

    @property
    def tokens(self) -> int:
        """The ids written so far."""
        return self._corpus.count

    @property
    def samples(self) -> int:
        """The samples written so far."""
        return self._starts.count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with ExitStack() as stack:
            for writer in filter(None, (self._corpus, self._starts, self._loss)):
                stack.enter_context(writer.file)
                if error is None:
                    writer.complete()


def _kept(ids: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[Any]:
    """Return the ids of samples, copied run by run: between two of them seldom anything is dropped."""
    breaks = np.flatnonzero(starts[1:] != ends[:-1])
    begins = starts[np.concatenate(([0], breaks + 1))]
    stops = ends[np.concatenate((breaks, [len(ends) - 1]))]
    return np.concatenate([ids[a:b] for a, b in zip(begins, stops, strict=True)])


class _NpyWriter:
    """Appends to a one-dimensional .npy file; its header is completed at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.count = 0
        self.file: BinaryIO = path.open("wb")
        self._header()

    def append(self, array: NDArray[Any]) -> None:
        self.file.write(np.ascontiguousarray(array, self.dtype).data)
        self.count += len(array)

    def fill(self, count: int) -> None:
        """Append ones."""
        for at in range(0, count, len(_FILLED)):
            self.append(_FILLED[: count - at])

    def complete(self) -> None:
        self.file.seek(0)
        self._header()

    def _header(self) -> None:
        # numpy pads headers so that a longer first axis still fits in the same place.
        fields = {
            "descr": npy.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.count,),
        }
        npy.write_array_header_1_0(self.file, fields)
