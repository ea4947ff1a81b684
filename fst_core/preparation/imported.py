"""A dataset made of ids that another program encoded, and the tokenizer that it used."""

from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fst_core.artefacts.digests import digest_files
from fst_core.artefacts.manifest import MANIFEST, read_manifest
from fst_core.artefacts.model import TOKENIZER, load_tokenizer
from fst_core.artefacts.provenance import record
from fst_core.artefacts.publish import locked, publishing
from fst_core.dataset import Dataset, SplitWriter, cut, token_dtype
from fst_core.dataset.megatron import MegatronCorpus
from fst_core.errors import UserError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.plugins import registry
from fst_core.preparation.description import Tally, describe, split_counts
from fst_core.preparation.held_out import HeldOut
from fst_core.preparation.shards import check_samples
from fst_core.preparation.space import telling_full_disk
from fst_core.settings import validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from fst_core.documents import Split
    from fst_core.interfaces import Tokenizer
    from fst_core.pipeline.pipeline import DatasetSettings

__all__ = ["import_megatron"]

_AT_ONCE = 1_000
"""Documents that are written at once."""


def import_megatron(
    target: Path,
    *,
    train: Path,
    valid: Path | None,
    tokenizer: Path,
    settings: DatasetSettings,
    seed: int,
) -> Dataset:
    """Make a dataset of a corpus in Megatron's format.

    Args:
        target: the dataset's directory, which does not exist.
        train: the prefix of the two files to train on.
        valid: that of those to validate on; None: a share of the others is held out.
        tokenizer: a dataset or a model that has the tokenizer, or what `pretrained` opens.
        settings: how documents are cut into samples, and which share is held out.
        seed: decides which documents are held out.

    Raises:
        ArtefactError: a file is missing or damaged, or has ids beyond the tokenizer's.
        UserError: the target exists, or a split has no sample.
        FstError: the disk got full; nothing is left behind.
    """
    with locked(target.parent):
        if target.exists():
            raise UserError(f"{target}: exists. Name a directory that does not.")
        with telling_full_disk(target.parent), publishing(target) as staging:
            component = _save_tokenizer(tokenizer, staging / TOKENIZER)
            loaded = load_tokenizer(staging, {"components": {"tokenizer": component}})
            corpora = {"train": MegatronCorpus.open(train)}
            if valid is not None:
                corpora["valid"] = MegatronCorpus.open(valid)
            fingerprint = _fingerprint([train, valid] if valid else [train], settings, seed)
            fingerprint.add(
                "tokenizer.content", digest_files(sorted((staging / TOKENIZER).iterdir()))
            )
            documents = _documents(corpora, loaded.vocab_size, settings.valid_share, seed)
            tallies = _write(documents, staging, loaded, settings)
            check_samples(str(train), tallies, settings.min_sample_length)
            lengths = {
                "max_sample_length": settings.max_sample_length,
                "min_sample_length": settings.min_sample_length,
            }
            table = {
                "documents_train_file": str(train),
                "documents_valid_file": None if valid is None else str(valid),
                "tokenizer": component["use"],
                **lengths,
            }
            describe(
                staging,
                "dataset",
                table,
                {"vocab_size": loaded.vocab_size, **lengths, **split_counts(tallies)},
                fingerprint=fingerprint.digest,
                fields=fingerprint.fields,
                components={"tokenizer": component},
            )
    return Dataset.open(target)


def _save_tokenizer(source: Path, directory: Path) -> Mapping[str, Any]:
    """Save the tokenizer of an artefact, or of a directory of others, and return its record."""
    if (source / MANIFEST).is_file():
        component: Mapping[str, Any] = read_manifest(source)["components"]["tokenizer"]
        shutil.copytree(source / TOKENIZER, directory)
        return component
    offer = registry().find("tokenizer", "transformers/pretrained")
    offer.require()
    settings_class = offer.settings_class()
    assert settings_class is not None
    settings = validate(settings_class, {"path": str(source)})
    directory.mkdir()
    offer.build(settings).save(directory)
    return record(offer, settings)


def _fingerprint(prefixes: list[Path], settings: DatasetSettings, seed: int) -> Fingerprint:
    fingerprint = Fingerprint(stage="import")
    for split, prefix in zip(("train", "valid"), prefixes, strict=False):
        digest = digest_files([Path(f"{prefix}.bin"), Path(f"{prefix}.idx")])
        fingerprint.add(f"documents.{split}.content", digest)
    if len(prefixes) == 1:
        fingerprint.add("run.seed", seed)
        fingerprint.add("dataset.valid_share", settings.valid_share)
    fingerprint.add("dataset.max_sample_length", settings.max_sample_length)
    fingerprint.add("dataset.min_sample_length", settings.min_sample_length)
    return fingerprint


def _documents(
    corpora: Mapping[str, MegatronCorpus], vocab_size: int, share: float, seed: int
) -> Iterator[tuple[Split, NDArray[np.uint32]]]:
    train = corpora["train"].read(vocab_size)
    if "valid" in corpora:
        yield from (("train", ids) for ids in train)
        yield from (("valid", ids) for ids in corpora["valid"].read(vocab_size))
        return
    if len(corpora["train"]) < 2:
        raise UserError(f"{corpora['train'].place}: one document alone. Name others with --valid.")
    held = HeldOut(range(len(corpora["train"])), share, seed)
    for ids, is_held in zip(train, held, strict=False):
        yield ("valid" if is_held else "train"), ids


def _write(
    documents: Iterable[tuple[Split, NDArray[np.uint32]]],
    directory: Path,
    tokenizer: Tokenizer,
    settings: DatasetSettings,
) -> dict[Split, Tally]:
    tallies: dict[Split, Tally] = {"train": Tally(), "valid": Tally()}
    dtype = token_dtype(tokenizer.vocab_size)
    with (
        SplitWriter(directory / "train", dtype) as train,
        SplitWriter(directory / "valid", dtype) as valid,
    ):
        writers: dict[Split, SplitWriter] = {"train": train, "valid": valid}
        waiting = iter(documents)
        while block := list(islice(waiting, _AT_ONCE)):
            for split, writer in writers.items():
                parts = [ids for of, ids in block if of == split]
                if not parts:
                    continue
                offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
                starts, ends = cut(offsets, settings.max_sample_length, settings.min_sample_length)
                ids = np.concatenate(parts)
                writer.write(ids, starts, ends)
                tally = tallies[split]
                tally.documents += len(parts)
                tally.bytes += _text_bytes(tokenizer, ids, offsets, starts, ends)
        for split, writer in writers.items():
            tallies[split].samples, tallies[split].tokens = writer.samples, writer.tokens
    return tallies


def _text_bytes(
    tokenizer: Tokenizer,
    ids: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
) -> int:
    """Return the UTF-8 bytes of the text in samples, decoded document by document."""
    owners = np.searchsorted(offsets, starts, "right") - 1
    kept = np.zeros(len(offsets) - 1, np.int64)
    np.maximum.at(kept, owners, ends - offsets[owners])
    texts = (
        tokenizer.decode(ids[begin : begin + length].tolist())
        for begin, length in zip(offsets, kept, strict=False)
        if length
    )
    return sum(len(text.encode()) for text in texts)
