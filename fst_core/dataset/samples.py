"""A dataset as it lies on disk, opened without reading it.

A split is a folder of arrays: `corpus.npy`, the ids of all samples one after another, uint16 where
the vocabulary fits and else uint32; `sample_start_positions.npy`, int64, where each sample begins in
it; and, where some id carries no loss, `loss_mask.npy`, uint8, 1 for each that does and 0 for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
from numpy.lib.format import open_memmap

from fst_core.documents import Split
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["IGNORED", "TEMPLATE", "Dataset", "Samples", "open_split", "token_dtype"]

CORPUS = "corpus.npy"
STARTS = "sample_start_positions.npy"
LOSS = "loss_mask.npy"
TEMPLATE = "chat_template.jinja"
"""The file of a dataset with conversations that says how they were written."""
IGNORED = -100
"""The label of what carries no loss, which torch's cross entropy leaves out."""
_SPLITS: Final[tuple[Split, ...]] = get_args(Split)


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest dtype, uint16 or uint32, that holds every id of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one split, a sequence of arrays of ids."""

    corpus: NDArray[Any]
    """(tokens,) uint16 or uint32, memory-mapped."""
    starts: NDArray[np.int64]
    """(samples,) int64, memory-mapped."""
    text_bytes: int
    """UTF-8 bytes of the documents' text in these samples, of the text that carries loss."""
    loss: NDArray[np.uint8] | None = None
    """(tokens,) uint8, memory-mapped: 1 for an id that carries loss; None: all do."""

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Return one sample's ids, (length,), without copying them."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.corpus[self._place(index % len(self))]

    def labels(self, index: int) -> NDArray[np.int64]:
        """Return one sample's ids, (length,), with IGNORED in place of those that carry no loss."""
        labels = self[index].astype(np.int64)
        if self.loss is not None:
            labels[self.loss[self._place(index % len(self))] == 0] = IGNORED
        return labels

    def _place(self, index: int) -> slice:
        end = self.starts[index + 1] if index + 1 < len(self) else len(self.corpus)
        return slice(self.starts[index], end)

    @property
    def tokens(self) -> int:
        """The number of ids in all samples."""
        return len(self.corpus)

    def lengths(self) -> NDArray[np.int64]:
        """Return the length of each sample, (samples,) int64."""
        return np.diff(self.starts, append=np.int64(len(self.corpus)))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A prepared dataset: two splits, and the manifest that says how they were made."""

    directory: Path
    manifest: Mapping[str, Any]
    train: Samples
    valid: Samples

    @classmethod
    def open(cls, directory: Path) -> Dataset:
        """Open a published dataset; the sizes of its files are compared with its manifest.

        Raises:
            ArtefactError: it is no dataset, or a file of it is missing or has another size.
        """
        from fst_core.artefacts.manifest import read_manifest

        manifest = read_manifest(directory, kind="dataset")
        counts = manifest.get("counts", {})
        wanted = ["max_sample_length"]
        wanted += [f"number_of_{s}_{n}" for s in _SPLITS for n in ("samples", "tokens", "bytes")]
        if missing := [name for name in wanted if not isinstance(counts.get(name), int)]:
            raise ArtefactError(f"{directory}: fst.json does not say {missing[0]}")
        train, valid = (open_split(directory, split, counts) for split in _SPLITS)
        return cls(directory, manifest, train, valid)

    @property
    def fingerprint(self) -> str:
        """The digest of everything that the dataset was made from."""
        return str(self.manifest["fingerprint"])

    @property
    def chat_template(self) -> Path | None:
        """The file of the template by which conversations were written; None if there were none."""
        path = self.directory / TEMPLATE
        return path if path.is_file() else None

    @property
    def max_sample_length(self) -> int:
        """The length that no sample exceeds."""
        return int(self.manifest["counts"]["max_sample_length"])


def open_split(directory: Path, split: Split, counts: Mapping[str, int]) -> Samples:
    """Open one split, whose sizes are compared with the counts of its manifest.

    Raises:
        ArtefactError: a file is missing or damaged, or has another size.
    """
    corpus = _mapped(directory / split / CORPUS, (np.uint16, np.uint32))
    starts = _mapped(directory / split / STARTS, (np.int64,))
    expected = (counts[f"number_of_{split}_tokens"], counts[f"number_of_{split}_samples"])
    if (len(corpus), len(starts)) != expected:
        raise ArtefactError(
            f"{directory / split}: holds {len(corpus)} tokens in {len(starts)} samples, "
            f"but fst.json says {expected[0]} in {expected[1]}. Prepare the dataset again."
        )
    loss = None
    if (directory / split / LOSS).exists():
        loss = _mapped(directory / split / LOSS, (np.uint8,))
        if len(loss) != len(corpus):
            raise ArtefactError(
                f"{directory / split / LOSS}: speaks of {len(loss)} tokens, and there are {len(corpus)}"
            )
    return Samples(corpus, starts, counts[f"number_of_{split}_bytes"], loss)


def _mapped(path: Path, dtypes: Sequence[type[np.integer[Any]]]) -> NDArray[Any]:
    """Map an array of one axis from a .npy file, which cannot hold Python objects."""
    try:
        array: NDArray[Any] = open_memmap(path, mode="r")
    except (OSError, OverflowError, SyntaxError, TokenError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: not an array: {error}") from None
    if array.ndim != 1 or array.dtype not in dtypes:
        raise ArtefactError(
            f"{path}: {array.dtype} of shape {array.shape}, not what a dataset holds"
        )
    return array
