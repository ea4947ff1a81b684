"""The corpus format of Megatron-LM and its kin: `PREFIX.bin`, all ids, and `PREFIX.idx`, where they belong.

The index has a header (magic, version 1 as uint64, the dtype's code as uint8, how many sequences and
how many document borders there are, uint64 each), the length of each sequence in ids (int32), the
byte at which it begins in the other file (int64), and the sequences at which documents begin, the
last one's end included (int64); all little-endian. See `IndexedDataset` of megatron-core.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fst_core.dataset.samples import Samples

__all__ = ["MegatronCorpus", "document_starts", "write_megatron"]

_MAGIC: Final = b"MMIDIDX\x00\x00"
_HEADER: Final = struct.Struct("<9sQBQQ")
_VERSION: Final = 1
_CODES: Final = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
"""The dtypes of ids; 6 and 7 are floating."""
_AT_ONCE: Final = 2**22
"""Ids that are converted at once."""


def document_starts(
    samples: Samples, max_length: int, bos_id: int | None, end_id: int
) -> NDArray[np.int64]:
    """Return which samples begin a document, (documents,).

    One does that stands first, that begins with the `bos_id`, or whose neighbour before it ended
    one: with the `end_id`, or before it was as long as can be. Where nothing begins a document, one
    that lost its end behind a full sample is not told from the next.
    """
    if not len(samples):
        return np.zeros(0, np.int64)
    begins = np.ones(len(samples), np.bool_)
    lasts = samples.corpus[samples.starts[1:] - 1]
    begins[1:] = (lasts == end_id) | (samples.lengths()[:-1] < max_length)
    if bos_id is not None:
        begins |= samples.corpus[samples.starts] == bos_id
    return np.flatnonzero(begins)


def write_megatron(prefix: Path, samples: Samples, documents: NDArray[np.int64]) -> None:
    """Write samples, of which some begin documents, a sequence a document; the index comes last.

    Ids of more than two bytes become int32, as that is what the format has.
    """
    code = 8 if samples.corpus.dtype == np.uint16 else 4
    dtype = np.dtype(_CODES[code])
    borders = np.append(samples.starts[documents], len(samples.corpus))
    count = len(documents)
    with _whole(Path(f"{prefix}.bin")) as partial, partial.open("wb") as file:
        for at in range(0, len(samples.corpus), _AT_ONCE):
            file.write(samples.corpus[at : at + _AT_ONCE].astype(dtype).data)
        _flush(file)
    with _whole(Path(f"{prefix}.idx")) as partial, partial.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, _VERSION, code, count, count + 1))
        file.write(np.diff(borders).astype("<i4").data)
        file.write((borders[:-1] * dtype.itemsize).astype("<i8").data)
        file.write(np.arange(count + 1, dtype="<i8").data)
        _flush(file)


@dataclass(frozen=True, slots=True)
class MegatronCorpus:
    """A corpus in the format, opened without reading it."""

    place: str
    ids: NDArray[Any]
    """(ids,) memory-mapped."""
    lengths: NDArray[np.int32]
    """(sequences,) in ids."""
    begins: NDArray[np.int64]
    """(sequences,) in ids."""
    documents: NDArray[np.int64]
    """(documents + 1,) the sequence at which each begins, the last one's end included."""

    @classmethod
    def open(cls, prefix: Path) -> MegatronCorpus:
        """Open `PREFIX.bin` and `PREFIX.idx`.

        Raises:
            ArtefactError: one is missing or damaged, or they do not belong together.
        """
        index, data = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
        try:
            content, size = index.read_bytes(), data.stat().st_size
        except OSError as error:
            raise ArtefactError(f"{error.filename}: {error.strerror}") from None
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            raise ArtefactError(f"{index}: not an index of Megatron-LM")
        _, version, code, sequences, borders = _HEADER.unpack_from(content)
        if version != _VERSION or code not in _CODES:
            raise ArtefactError(f"{index}: version {version} with dtype {code} is not known")
        # What may follow, a mode of each sequence, belongs to models of more than text.
        if _HEADER.size + 12 * sequences + 8 * borders > len(content) or not borders:
            raise ArtefactError(f"{index}: damaged: {len(content)} bytes are too few")
        at = _HEADER.size
        lengths = np.frombuffer(content, "<i4", sequences, at)
        pointers = np.frombuffer(content, "<i8", sequences, at + 4 * sequences)
        documents = np.frombuffer(content, "<i8", borders, at + 12 * sequences)
        dtype = np.dtype(_CODES[code])
        _check_sequences(index, lengths, pointers, dtype.itemsize, size)
        if documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
            raise ArtefactError(f"{index}: damaged: its documents do not follow one another")
        ids = np.memmap(data, dtype, "r") if size else np.zeros(0, dtype)
        return cls(str(prefix), ids, lengths, pointers // dtype.itemsize, documents)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.documents) - 1

    def read(self, vocab_size: int) -> Iterator[NDArray[np.uint32]]:
        """Yield the ids of each document.

        Raises:
            ArtefactError: an id is not in the vocabulary.
        """
        for number, (first, last) in enumerate(
            zip(self.documents, self.documents[1:], strict=False)
        ):
            parts = [
                self.ids[self.begins[i] : self.begins[i] + self.lengths[i]]
                for i in range(first, last)
            ]
            ids = np.concatenate(parts) if parts else np.zeros(0, np.uint32)
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocab_size:
                raise ArtefactError(
                    f"{self.place}.bin: document {number} has ids from {ids.min()} to {ids.max()}, "
                    f"and the tokenizer has {vocab_size}"
                )
            yield ids.astype(np.uint32)


def _check_sequences(
    index: Path, lengths: NDArray[np.int32], pointers: NDArray[np.int64], itemsize: int, size: int
) -> None:
    """Check that sequences lie in a file of `size` bytes."""
    room = (size - pointers) // itemsize
    inside = (pointers >= 0) & (pointers % itemsize == 0) & (lengths >= 0) & (lengths <= room)
    if not inside.all():
        raise ArtefactError(
            f"{index}: sequence {int(inside.argmin())} lies outside of the .bin file"
        )


class _whole:  # noqa: N801  # a context manager, as those of contextlib
    """Give a name beside a file, which becomes the file if the block succeeds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self.partial.replace(self.path)
        else:
            self.partial.unlink(missing_ok=True)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
