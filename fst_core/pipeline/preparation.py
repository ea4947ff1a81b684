"""The making of a dataset: documents are read, encoded and written, each in a thread of its own."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.artefacts.manifest import write_manifest
from fst_core.artefacts.model import TOKENIZER
from fst_core.artefacts.provenance import record
from fst_core.dataset import SplitWriter, cut, token_dtype
from fst_core.documents import Split, cut_last
from fst_core.encoding import Bulk, EncodersDiffer, bulk_encoding
from fst_core.errors import DocumentError, UserError
from fst_core.pipeline.ahead import ahead
from fst_core.pipeline.held_out import HeldOut
from fst_core.pipeline.progress import Progress
from fst_core.pipeline.space import check_space
from fst_core.pipeline.text_bytes import lost_bytes, margin_of, size_of
from fst_core.plugins import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fst_core.documents import Document
    from fst_core.interfaces import Reader, Tokenizer
    from fst_core.pipeline.pipeline import DatasetSettings, Pipeline
    from fst_core.pipeline.plan import Plan

__all__ = ["Preparation"]

MAX_DOCUMENT_BYTES = 2**26
"""A longer document is refused, unless its tokenizer encodes it in pieces."""

_AIMS: Mapping[Split, str] = {"train": "train", "valid": "validate"}
"""What the documents of a split are for, in messages."""
_BATCH_CHARACTERS = 2**20
"""Documents are encoded together until they have this many characters."""
_AHEAD: Final = 3
"""Batches that wait between two threads."""
_PROBE: Final = 2**16
"""Characters of the first documents, from which the size of the dataset is estimated."""
_ROOM: Final = 2**16
"""Bytes for what describes the dataset; its tokenizer is written by then."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of one split on their way through the threads."""

    split: Split
    texts: list[str]
    text_bytes: int


class Preparation:
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
        self.held: HeldOut | None = None
        """Which training documents are held out; None if the reader has a valid split."""
        self.share = self.settings.valid_share
        self.longest: int | None = None
        """Bytes of the longest document that can be encoded; None if there is no bound."""
        self.documents = {"train": 0, "valid": 0}
        self.dropped = 0

    def make(self) -> None:
        """Make it.

        Raises:
            UserError: the documents do not make a dataset, or there is no room for it.
        """
        begun = time.perf_counter()
        self.tell(f"prepare: {self._kinds()}")
        self._look()
        self._fit()
        (self.directory / TOKENIZER).mkdir()
        self.tokenizer.save(self.directory / TOKENIZER)
        size = self._size()
        with bulk_encoding(size) as bulk:
            try:
                counts = self._encode(bulk, size)
            except EncodersDiffer as differ:
                self.tell(f"prepare: {differ} on these documents; begins again without it")
                for split in _AIMS:
                    shutil.rmtree(self.directory / split, ignore_errors=True)
                counts = self._encode(bulk, size)
            self._describe(counts, bulk.record())
        if bulk.why_not is not None:
            self.tell(f"prepare: encoded slowly: {bulk.why_not}")
        seconds = time.perf_counter() - begun
        self.tell(
            f"prepare: {counts['number_of_train_samples']:,} samples of "
            f"{counts['number_of_train_tokens']:,} tokens to train on, "
            f"{counts['number_of_valid_samples']:,} of {counts['number_of_valid_tokens']:,} to "
            f"validate on, in {seconds:.1f} s -> {self.plan.directory}"
        )

    def _kinds(self) -> str:
        assert self.pipeline.documents is not None
        assert self.pipeline.tokenizer is not None
        return (
            f"documents by '{self.pipeline.documents.offer.name}', "
            f"tokens by '{self.pipeline.tokenizer.offer.name}'"
        )

    def _look(self) -> None:
        """Look at the first documents: whether there are any, and which are held out."""
        for split in self.reader.splits():
            if next(self.reader.read(split), None) is None:
                raise UserError(
                    f"{self.pipeline.file} [documents]: there is no document to {_AIMS[split]} on"
                )
        if "valid" not in self.reader.splits():
            self._hold_out()

    def _hold_out(self) -> None:
        self.held = HeldOut(self.reader.read("train"), self.share, self.pipeline.run.seed)

    def _fit(self) -> None:
        """Let the tokenizer learn, and tell how well it compresses if it read any text for that."""
        probe: list[str] = []

        def texts() -> Iterator[str]:
            for split, text in self._texts():
                if split == "train":
                    if not probe or sum(map(len, probe)) < _PROBE:
                        probe.append(text[:_PROBE])
                    yield text

        self.tokenizer.fit(texts())
        if probe:
            said = f"prepare: learned {self.tokenizer.vocab_size:,} ids: "
            said += f"{_bytes_a_token(self.tokenizer, probe):.2f} bytes a token"
            with suppress(UserError):  # it or its vocabulary is not installed
                gpt2 = registry().find("tokenizer", "gpt2/gpt2").build(None)
                said += f" (gpt2: {_bytes_a_token(gpt2, probe):.2f})"
            self.tell(said)

    def _validates(self) -> bool:
        """Return whether what is held out makes a sample; a part of a small corpus may be too short."""
        shortest = self.settings.min_sample_length
        held = (text for split, text in self._texts() if split == "valid")
        return any(len(self.tokenizer.encode_documents([text])[0]) >= shortest for text in held)

    def _size(self) -> int | None:
        """Return about how many bytes of documents there are; None if the reader does not know."""
        sizes = [self.reader.size(split) for split in self.reader.splits()]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def _encode(self, bulk: Bulk, size: int | None) -> dict[str, int]:
        """Write both splits, and return what there is to count."""
        self.documents = {"train": 0, "valid": 0}
        margin = margin_of(self.tokenizer)
        self.longest = None if bulk.cuts else MAX_DOCUMENT_BYTES
        while self.held is not None and self.share < 0.5 and not self._validates():
            self.share = min(2 * self.share, 0.5)
            self._hold_out()
            self.tell(f"prepare: holds out {self.share:g} of the text: less makes no sample")
        dtype = token_dtype(self.tokenizer.vocab_size)
        if size is not None:
            check_space(self.directory, self._estimate(size, dtype))
        text_bytes = {"train": 0, "valid": 0}
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(SplitWriter(self.directory / split, dtype))
                for split in _AIMS
            }
            progress = stack.enter_context(Progress(self.tell, size))
            read = ahead(_batches(self._texts()), _AHEAD)
            encoded = stack.enter_context(closing(ahead(self._encoded(read), _AHEAD)))
            for batch, ids, offsets in encoded:
                lost = self._write(writers[batch.split], batch.texts, ids, offsets, margin)
                text_bytes[batch.split] += batch.text_bytes - lost
                self.documents[batch.split] += len(batch.texts)
                progress.advance(batch.text_bytes, len(ids))
        return self._counts(writers, text_bytes)

    def _estimate(self, size: int, dtype: np.dtype[Any]) -> int:
        """Return about how many bytes the dataset takes, judged by its first documents."""
        texts: list[str] = []
        for _, text in self._texts():
            texts.append(text[:_PROBE])
            if sum(map(len, texts)) >= _PROBE:
                break
        _, offsets = self.tokenizer.encode_documents(texts)
        starts, _ = cut(offsets, self.settings.max_sample_length, self.settings.min_sample_length)
        made = int(offsets[-1]) * dtype.itemsize + len(starts) * np.dtype(np.int64).itemsize
        return round(size * made / sum(map(size_of, texts))) + _ROOM

    def _texts(self) -> Iterator[tuple[Split, str]]:
        """Yield every document's text with its split, in the order of reading."""
        dropped = 0
        for split in self.reader.splits():
            held = repeat(False) if self.held is None else iter(self.held)
            for document in self.reader.read(split):
                text = self._text(document)
                if self.held is not None and self.held.single:
                    train, valid = cut_last(text, self.share)
                    yield "train", train
                    yield "valid", valid
                else:
                    yield ("valid" if next(held) else split), text
            dropped += self.reader.dropped()
        self.dropped = dropped

    def _text(self, document: Document) -> str:
        text = document.text
        if text is None:
            raise DocumentError(
                f"{document.source}: a conversation; only texts can be prepared in this version"
            )
        if self.longest is not None and 4 * len(text) > self.longest < size_of(text):
            raise DocumentError(
                f"{document.source}: a document of {size_of(text):,} bytes, more than the "
                f"{self.longest:,} that this tokenizer can encode at once. Cut it."
            )
        return text

    def _encoded(
        self, batches: Generator[Batch]
    ) -> Generator[tuple[Batch, NDArray[np.uint32], NDArray[np.int64]]]:
        with closing(batches):
            for batch in batches:
                yield (batch, *self.tokenizer.encode_documents(batch.texts))

    def _write(
        self,
        writer: SplitWriter,
        texts: list[str],
        ids: NDArray[np.uint32],
        offsets: NDArray[np.int64],
        margin: int,
    ) -> int:
        """Write the samples of some documents, and return the bytes of text that are in none."""
        longest, shortest = self.settings.max_sample_length, self.settings.min_sample_length
        writer.write(ids, *cut(offsets, longest, shortest))
        rests = np.diff(offsets) % longest
        lost = np.where(rests < shortest, rests, 0)
        return sum(
            lost_bytes(
                self.tokenizer, texts[i], ids[offsets[i] : offsets[i + 1]], int(lost[i]), margin
            )
            for i in np.flatnonzero(lost)
        )

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

    def _describe(self, counts: Mapping[str, int], encoder: Mapping[str, Any] | None) -> None:
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
            **({} if encoder is None else {"encoder": encoder}),
            components={
                "reader": record(documents.offer, documents.settings),
                "tokenizer": record(tokenizer.offer, tokenizer.settings),
            },
            counts=counts,
        )


def _bytes_a_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    ids, _ = tokenizer.encode_batch(texts)
    return sum(map(size_of, texts)) / max(len(ids), 1)


def _batches(texts: Iterator[tuple[Split, str]]) -> Iterator[Batch]:
    """Gather texts of one split, so that many are encoded at once and memory stays bounded."""
    waiting: dict[Split, list[str]] = {"train": [], "valid": []}
    characters = {"train": 0, "valid": 0}
    for split, text in texts:
        waiting[split].append(text)
        characters[split] += len(text)
        if characters[split] >= _BATCH_CHARACTERS:
            yield _batch(split, waiting[split])
            waiting[split], characters[split] = [], 0
    for split, rest in waiting.items():
        if rest:
            yield _batch(split, rest)


def _batch(split: Split, texts: list[str]) -> Batch:
    return Batch(split, texts, sum(map(size_of, texts)))


def _paths(value: Any) -> Any:
    """Return a single path as a string, several as a list, none as null."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else value or None
    return value
