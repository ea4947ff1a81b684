"""Shards: parts of a dataset that are prepared apart, on any machine, and joined to what one run makes.

Documents are dealt to the shards block by block; a shard keeps how much each of its blocks became,
so that they can be laid down again in their order.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.artefacts.manifest import read_manifest, verify
from fst_core.artefacts.model import TOKENIZER, tokenizer_digest
from fst_core.dataset import TEMPLATE, SplitWriter, open_split, token_dtype
from fst_core.errors import ArtefactError, UserError
from fst_core.preparation.batches import batches
from fst_core.preparation.corpus import AIMS
from fst_core.preparation.description import TABLE, Tally, describe, split_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fst_core.documents import Document, Split
    from fst_core.preparation.batches import Batch

__all__ = ["SHARD", "Extents", "Shard", "check_samples", "join"]

SHARD: Final = "shard"
"""The kind of a shard's directory."""
BLOCK = 256
"""Documents that are dealt to a shard at once."""
_EXTENTS: Final = "blocks.npy"


@dataclass(frozen=True, slots=True)
class Shard:
    """The part `index` (from 1) of `of` parts."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`.

        Raises:
            ValueError: it is not of that form, or i is not from 1 to n.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"{text!r}: not of the form i/n, with i from 1 to n")
        return cls(int(found[1]), int(found[2]))

    def batches(self, documents: Iterable[tuple[Split, Document]]) -> Iterator[Batch]:
        """Yield the batches of this shard's documents; each knows its block."""
        for block, dealt in groupby(enumerate(documents), key=lambda each: each[0] // BLOCK):
            if block % self.of == self.index - 1:
                for batch in batches(document for _, document in dealt):
                    yield replace(batch, block=block)


class Extents:
    """How many samples and tokens of each split the blocks of a shard became."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[Split, list[int]]] = {}

    def add(self, block: int, split: Split, samples: int, tokens: int) -> None:
        """Count what was written of a block."""
        row = self._rows.setdefault(block, {"train": [0, 0], "valid": [0, 0]})
        row[split][0] += samples
        row[split][1] += tokens

    def save(self, directory: Path) -> None:
        """Write a row a block: its number, then samples and tokens of each split."""
        rows = [[block, *row["train"], *row["valid"]] for block, row in self._rows.items()]
        np.save(directory / _EXTENTS, np.array(rows, np.int64).reshape(-1, 5))


@dataclass(frozen=True, slots=True)
class _Part:
    directory: Path
    manifest: Mapping[str, Any]
    extents: NDArray[np.int64]

    @classmethod
    def open(cls, directory: Path) -> _Part:
        manifest = read_manifest(directory, kind=SHARD)
        try:
            extents = np.load(directory / _EXTENTS, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{directory / _EXTENTS}: {error}") from None
        if extents.ndim != 2 or extents.shape[1:] != (5,) or extents.dtype != np.int64:
            raise ArtefactError(f"{directory / _EXTENTS}: not the blocks of a shard")
        return cls(directory, manifest, extents)

    @property
    def place(self) -> Shard:
        return Shard(*self.manifest["shard"])


def join(directories: Sequence[Path], target: Path, discard: Path | None = None) -> None:
    """Write the dataset of all shards of one preparation into a directory.

    Args:
        directories: the shards, in any order.
        target: where to; it may hold the tokenizer already.
        discard: a folder that is removed before the target is described, such as that of the shards.

    Raises:
        ArtefactError: one is damaged, they do not belong together, or one is missing.
        UserError: a split has no sample.
    """
    parts = sorted(map(_Part.open, directories), key=lambda part: part.place.index)
    _check(parts)
    if discard is None:  # they may have come a long way
        for part in parts:
            verify(part.directory)
    first = parts[0]
    if not (target / TOKENIZER).is_dir():
        shutil.copytree(first.directory / TOKENIZER, target / TOKENIZER)
    for part in parts:
        if (part.directory / TEMPLATE).is_file():
            shutil.copyfile(part.directory / TEMPLATE, target / TEMPLATE)
    counts = dict(first.manifest["counts"])
    tallies = {split: _join_split(parts, split, target, counts) for split in AIMS}
    check_samples(str(first.directory), tallies, counts["min_sample_length"])
    table = json.loads((first.directory / TABLE).read_bytes())
    kept = ("fingerprint", "fields", "reading", "components")
    fields = {name: first.manifest[name] for name in kept}
    encoder = [part.manifest["encoder"] for part in parts if "encoder" in part.manifest]
    if encoder:
        fields["encoder"] = _encoder(encoder)
    if discard is not None:
        shutil.rmtree(discard)
    describe(target, "dataset", table, {**counts, **split_counts(tallies)}, **fields)


def check_samples(place: str, tallies: Mapping[Split, Tally], shortest: int) -> None:
    """Check that there is a sample of each split.

    Raises:
        UserError: there is none.
    """
    for split, tally in tallies.items():
        if not tally.samples:
            raise UserError(
                f"{place} [dataset]: no document to {AIMS[split]} on (of {tally.documents}) has "
                f"min_sample_length = {shortest} ids. Lower it, or add documents."
            )


def _check(parts: Sequence[_Part]) -> None:
    first = parts[0]
    found = [part.place.index for part in parts]
    for part in parts[1:]:
        if part.manifest["fingerprint"] != first.manifest["fingerprint"]:
            raise ArtefactError(
                f"{part.directory}: made from something else than {first.directory}"
            )
        if part.place.of != first.place.of:
            raise ArtefactError(
                f"{part.directory}: the shard {part.place}, and {first.directory} is {first.place}"
            )
        if tokenizer_digest(part.manifest) != tokenizer_digest(first.manifest):
            raise ArtefactError(f"{part.directory}: has another tokenizer than {first.directory}")
    whole = range(1, first.place.of + 1)
    if missing := sorted(set(whole) - set(found)):
        raise ArtefactError(f"of {first.place.of} shards, these are missing: {missing}")
    if len(found) > len(whole):
        raise ArtefactError(f"a shard is given twice: {found}")


def _join_split(
    parts: Sequence[_Part], split: Split, target: Path, counts: Mapping[str, int]
) -> Tally:
    """Lay down the blocks of a split in their order."""
    opened = [open_split(part.directory, split, part.manifest["counts"]) for part in parts]
    column = 1 + 2 * list(AIMS).index(split)
    blocks = sorted(
        (int(row[0]), number, int(samples), int(tokens))
        for number, part in enumerate(parts)
        for row, samples, tokens in zip(
            part.extents, *part.extents[:, column : column + 2].T, strict=True
        )
    )
    at = [[0, 0] for _ in parts]
    with SplitWriter(target / split, token_dtype(counts["vocab_size"])) as writer:
        for _, number, samples, tokens in blocks:
            source, (sample, token) = opened[number], at[number]
            starts = source.starts[sample : sample + samples] - token
            loss = None if source.loss is None else source.loss[token : token + tokens]
            ends = np.append(starts[1:], tokens)[: len(starts)]
            writer.write(source.corpus[token : token + tokens], starts, ends, loss)
            at[number] = [sample + samples, token + tokens]
    sums = {
        what: sum(part.manifest["counts"][f"number_of_{split}_{what}"] for part in parts)
        for what in ("documents", "bytes")
    }
    return Tally(sums["documents"], writer.samples, writer.tokens, sums["bytes"])


def _encoder(said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what encoded all shards.

    Raises:
        ArtefactError: a fast encoder was wrong in one of them, so it may be so in others.
    """
    wrong = [each["why"] for each in said if "other ids" in each.get("why", "")]
    fast = [each for each in said if "equal_to" in each]
    if wrong and fast:
        raise ArtefactError(
            f"{wrong[0]} in one shard, and others were encoded by it. Uninstall it, and prepare "
            "those shards again."
        )
    if not fast:
        return dict(said[0])
    return {**fast[0], "on_bytes": sum(each["on_bytes"] for each in fast)}
