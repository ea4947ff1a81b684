"""The stage `prepare`: documents -> tokenizer -> dataset."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from fst_core.artefacts.manifest import read_manifest, write_manifest
from fst_core.artefacts.model import TOKENIZER
from fst_core.artefacts.provenance import record
from fst_core.artefacts.publish import locked, publishing
from fst_core.dataset import Dataset, SplitWriter, cut, token_dtype
from fst_core.documents import cut_last, held_out
from fst_core.errors import ArtefactError, DocumentError, UserError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.plan import Plan, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fst_core.documents import Document, Split
    from fst_core.interfaces import Reader, Tokenizer
    from fst_core.pipeline.pipeline import DatasetSettings, Pipeline

__all__ = ["plan_prepare", "prepare"]

_AIMS: Mapping[Split, str] = {"train": "train", "valid": "validate"}
"""What the documents of a split are for, in messages."""
_BATCH_CHARACTERS = 2**20
"""Documents are encoded together until they have this many characters."""
_CONTEXT = 8
"""Ids decoded before a cut: more than a character has."""


def plan_prepare(pipeline: Pipeline) -> Plan:
    """Plan the dataset of a pipeline; reads the documents' files to know their content.

    Raises:
        UserError: the documents are missing, or the dataset named by a path is another one.
    """
    if pipeline.dataset.path is not None:
        return _named(pipeline, pipeline.dataset.path)
    documents, tokenizer, settings = pipeline.documents, pipeline.tokenizer, pipeline.dataset
    assert documents is not None
    assert tokenizer is not None
    reader: Reader = documents.build()
    fingerprint = Fingerprint(stage="prepare")
    fingerprint.add_part("documents", documents)
    for split in reader.splits():
        fingerprint.add(f"documents.{split}.content", reader.fingerprint(split))
    if "valid" not in reader.splits():
        fingerprint.add("run.seed", pipeline.run.seed)
        fingerprint.add("dataset.valid_share", settings.valid_share)
    fingerprint.add_part("tokenizer", tokenizer)
    fingerprint.add("tokenizer.content", tokenizer.build().fingerprint())
    fingerprint.add("dataset.max_sample_length", settings.max_sample_length)
    fingerprint.add("dataset.min_sample_length", settings.min_sample_length)
    return number("prepare", pipeline.datasets, fingerprint, _described, lambda _: "reuse")


def _described(directory: Path) -> Mapping[str, Any]:
    manifest = read_manifest(directory, kind="dataset")
    if missing := [name for name in ("fingerprint", "fields") if name not in manifest]:
        raise ArtefactError(f"{directory}: fst.json does not say {' and '.join(missing)}")
    return manifest


def _named(pipeline: Pipeline, path: Path) -> Plan:
    """Plan to use the dataset that `[dataset] path` names, if it is what the other tables say."""
    manifest = _described(path)
    said = Fingerprint()
    for part in pipeline.parts("documents", "tokenizer"):
        said.add_part(part.place.strip("[]"), part)
    for name in ("max_sample_length", "min_sample_length"):
        if name in pipeline.dataset.model_fields_set:
            said.add(f"dataset.{name}", getattr(pipeline.dataset, name))
    made = {name: value for name, value in manifest["fields"].items() if name in said.fields}
    if differing := said.differences(made):
        raise ArtefactError("\n  ".join([f"{path}: made from something else:", *differing]))
    return Plan("prepare", "reuse", path, manifest["fingerprint"], manifest["fields"])


def prepare(pipeline: Pipeline, plan: Plan, tell: Callable[[str], None]) -> Dataset:
    """Carry out the plan of a dataset and return it; `tell` gets lines for the user.

    Raises:
        DocumentError: a document cannot be read; nothing is left behind.
        UserError: there are no documents, or all are too short.
    """
    if plan.action == "reuse":
        return Dataset.open(plan.directory)
    with locked(plan.directory.parent):
        if plan.directory.exists():
            raise UserError(f"{plan.directory}: another run has just made it. Run again.")
        with publishing(plan.directory) as staging:
            _Preparation(pipeline, plan, staging, tell).make()
    return Dataset.open(plan.directory)


class _Preparation:
    """One making of a dataset, in a directory that is published when it is whole."""

    def __init__(
        self, pipeline: Pipeline, plan: Plan, directory: Path, tell: Callable[[str], None]
    ) -> None:
        assert pipeline.documents is not None
        assert pipeline.tokenizer is not None
        self.pipeline = pipeline
        self.plan = plan
        self.directory = directory
        self.tell = tell
        self.settings: DatasetSettings = pipeline.dataset
        self.reader: Reader = pipeline.documents.build()
        self.tokenizer: Tokenizer = pipeline.tokenizer.build()
        self.held: NDArray[np.bool_] | None = None
        """Which training documents are held out; None if the reader has a valid split."""
        self.share = self.settings.valid_share
        self.documents = {"train": 0, "valid": 0}
        self.dropped = 0

    def make(self) -> None:
        begun = time.perf_counter()
        for split in self.reader.splits():
            if next(self.reader.read(split), None) is None:
                raise UserError(
                    f"{self.pipeline.file} [documents]: there is no document to {_AIMS[split]} on"
                )
        self.tell(f"prepare: {self._kinds()}")
        if "valid" not in self.reader.splits():
            self._hold_out(sum(1 for _ in self.reader.read("train")))
        self.tokenizer.fit(text for split, text in self._texts() if split == "train")
        while self.held is not None and self.share < 0.5 and not self._validates():
            self.share = min(2 * self.share, 0.5)
            self._hold_out(len(self.held))
            self.tell(f"prepare: holds out {self.share:g} of the text: less makes no sample")
        (self.directory / TOKENIZER).mkdir()
        self.tokenizer.save(self.directory / TOKENIZER)
        dtype = token_dtype(self.tokenizer.vocab_size)
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(SplitWriter(self.directory / split, dtype))
                for split in _AIMS
            }
            text_bytes = {"train": 0, "valid": 0}
            margin = _margin(self.tokenizer)
            for split, texts in _batches(self._texts()):
                text_bytes[split] += self._write(writers[split], texts, margin)
                self.documents[split] += len(texts)
        counts = self._counts(writers, text_bytes)
        self._describe(counts)
        self.tell(
            f"prepare: {counts['number_of_train_samples']:,} samples of "
            f"{counts['number_of_train_tokens']:,} tokens to train on, "
            f"{counts['number_of_valid_samples']:,} of {counts['number_of_valid_tokens']:,} to "
            f"validate on, in {time.perf_counter() - begun:.1f} s -> {self.plan.directory}"
        )

    def _kinds(self) -> str:
        assert self.pipeline.documents is not None
        assert self.pipeline.tokenizer is not None
        return (
            f"documents by '{self.pipeline.documents.offer.name}', "
            f"tokens by '{self.pipeline.tokenizer.offer.name}'"
        )

    def _hold_out(self, count: int) -> None:
        self.held = held_out(count, self.share, self.pipeline.run.seed)

    def _validates(self) -> bool:
        """Return whether what is held out makes a sample; a part of a small corpus may be too short."""
        shortest = self.settings.min_sample_length
        held = (text for split, text in self._texts() if split == "valid")
        return any(len(self.tokenizer.encode_documents([text])[0]) >= shortest for text in held)

    def _texts(self) -> Iterator[tuple[Split, str]]:
        """Yield every document's text with its split, in the order of reading."""
        dropped = 0
        for split in self.reader.splits():
            for index, document in enumerate(self.reader.read(split)):
                text = _text(document)
                if self.held is None:
                    yield split, text
                elif len(self.held) == 1:
                    train, valid = cut_last(text, self.share)
                    yield "train", train
                    yield "valid", valid
                else:
                    yield ("valid" if self.held[index] else "train"), text
            dropped += self.reader.dropped()
        self.dropped = dropped

    def _write(self, writer: SplitWriter, texts: list[str], margin: int) -> int:
        """Write the samples of some documents, and return the bytes of text in them."""
        ids, offsets = self.tokenizer.encode_documents(texts)
        longest, shortest = self.settings.max_sample_length, self.settings.min_sample_length
        writer.write(ids, *cut(offsets, longest, shortest))
        rests = np.diff(offsets) % longest
        lost = np.where(rests < shortest, rests, 0)
        kept_bytes = sum(len(text.encode()) for text in texts)
        for i in np.flatnonzero(lost):
            document = ids[offsets[i] : offsets[i + 1]]
            kept_bytes -= _lost_bytes(self.tokenizer, texts[i], document, int(lost[i]), margin)
        return kept_bytes

    def _counts(
        self, writers: Mapping[Split, SplitWriter], text_bytes: Mapping[str, int]
    ) -> dict[str, int]:
        for split, writer in writers.items():
            if not writer.samples:
                raise UserError(
                    f"{self.pipeline.file} [dataset]: no document to {_AIMS[split]} on "
                    f"(of {self.documents[split]}) has min_sample_length = "
                    f"{self.settings.min_sample_length} ids. Lower it, or add documents."
                )
        return {
            "vocab_size": self.tokenizer.vocab_size,
            "max_sample_length": self.settings.max_sample_length,
            "min_sample_length": self.settings.min_sample_length,
            "number_of_empty_documents": self.dropped,
            **{
                f"number_of_{split}_{what}": value
                for split, writer in writers.items()
                for what, value in (
                    ("documents", self.documents[split]),
                    ("samples", writer.samples),
                    ("tokens", writer.tokens),
                    ("bytes", text_bytes[split]),
                )
            },
        }

    def _describe(self, counts: Mapping[str, int]) -> None:
        """Write the table for people, and the manifest."""
        documents, tokenizer = self.pipeline.documents, self.pipeline.tokenizer
        assert documents is not None
        assert tokenizer is not None
        settings = {} if documents.settings is None else documents.settings.model_dump(mode="json")
        table = {
            "documents_train_file": _paths(settings.get("train")),
            "documents_valid_file": _paths(settings.get("valid")),
            "end_of_document": settings.get("end_of_document"),
            "tokenizer": tokenizer.offer.name,
            "tokenizer_cls_name": type(self.tokenizer).__name__,
            "max_sample_length": self.settings.max_sample_length,
            "min_sample_length": self.settings.min_sample_length,
            "datasets_root": self.settings.root.as_posix(),
            "dataset_name": self.pipeline.datasets.name,
            **{name: value for name, value in counts.items() if name.startswith("number_of_")},
        }
        text = json.dumps(table, indent=1, ensure_ascii=False) + "\n"
        (self.directory / "description.json").write_text(text, "utf-8", newline="\n")
        write_manifest(
            self.directory,
            "dataset",
            fingerprint=self.plan.fingerprint,
            fields=self.plan.fields,
            components={
                "reader": record(documents.offer, documents.settings),
                "tokenizer": record(tokenizer.offer, tokenizer.settings),
            },
            counts=counts,
        )


def _text(document: Document) -> str:
    if document.text is None:
        raise DocumentError(
            f"{document.source}: a conversation; only texts can be prepared in this version"
        )
    return document.text


def _batches(texts: Iterator[tuple[Split, str]]) -> Iterator[tuple[Split, list[str]]]:
    """Gather texts of one split, so that many are encoded at once and memory stays bounded."""
    waiting: dict[Split, list[str]] = {"train": [], "valid": []}
    characters = {"train": 0, "valid": 0}
    for split, text in texts:
        waiting[split].append(text)
        characters[split] += len(text)
        if characters[split] >= _BATCH_CHARACTERS:
            yield split, waiting[split]
            waiting[split], characters[split] = [], 0
    for split, rest in waiting.items():
        if rest:
            yield split, rest


def _margin(tokenizer: Tokenizer) -> int:
    """Return the bytes, such as those of a space, that a tokenizer puts behind a document's text."""
    ids, _ = tokenizer.encode_documents(["x"])
    return len(tokenizer.decode(ids.tolist()).partition("x")[2].encode())


def _lost_bytes(
    tokenizer: Tokenizer, text: str, ids: NDArray[np.uint32], lost: int, margin: int
) -> int:
    """Return the UTF-8 bytes of a document's text in the last `lost` of its ids, even inside a character."""
    size = len(text.encode())
    if lost == len(ids):
        return size
    if tokenizer.lossy:  # an estimate
        return round(size * lost / len(ids))
    ids = ids[-lost - _CONTEXT :]
    whole, kept, rest = (tokenizer.decode(i.tolist()) for i in (ids, ids[:-lost], ids[-lost:]))
    # A cut character is one U+FFFD in what is kept, and in the rest one for each byte.
    inside = max(len(kept) + len(rest) - len(whole), 0)
    behind = len(whole[len(kept) :].encode())
    return min(max(inside + behind - margin, 0), size)


def _paths(value: Any) -> Any:
    """Return a single path as a string, several as a list, none as null."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else value or None
    return value
