"""The making of a dataset: documents are read and written while threads encode others."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.artefacts.model import TOKENIZER
from fst_core.artefacts.provenance import record
from fst_core.artefacts.publish import flush
from fst_core.dataset import TEMPLATE, SplitWriter, token_dtype
from fst_core.documents import EMPTY
from fst_core.encoding import Bulk, EncodersDiffer, bulk_encoding
from fst_core.errors import UserError
from fst_core.plugins import registry
from fst_core.preparation.ahead import ahead
from fst_core.preparation.batches import Encoder, batches
from fst_core.preparation.corpus import AIMS, Corpus
from fst_core.preparation.description import Tally, describe, split_counts
from fst_core.preparation.progress import Progress
from fst_core.preparation.shards import SHARD, Extents, check_samples
from fst_core.preparation.space import check_space
from fst_core.preparation.text_bytes import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from fst_core.documents import Document, ReadReport, Split
    from fst_core.interfaces import Tokenizer
    from fst_core.pipeline.pipeline import DatasetSettings, Pipeline
    from fst_core.pipeline.plan import Plan
    from fst_core.preparation.shards import Shard

__all__ = ["Preparation", "tell_reading"]

_AHEAD: Final = 3
"""Batches that are read before what earlier ones became is written."""
_TOLD: Final = 20
"""Lines about single files; more are only counted."""
_PROBE: Final = 2**16
"""Characters of the first documents, by which the others are judged."""
_ROOM: Final = 2**16
"""Bytes for what describes the dataset; its tokenizer is written by then."""


class Preparation:
    """One making of a dataset, or of a shard of it, in a directory that is published when it is whole.

    A tokenizer that was `learned` before is read from there.
    """

    def __init__(  # noqa: PLR0917  # the last two are for shards
        self,
        pipeline: Pipeline,
        plan: Plan,
        directory: Path,
        tell: Callable[[str], None],
        shard: Shard | None = None,
        learned: Path | None = None,
    ) -> None:
        assert pipeline.documents is not None
        assert pipeline.tokenizer is not None
        self.pipeline = pipeline
        self.plan = plan
        self.directory = directory
        self.tell = tell
        self.shard = shard
        self.settings: DatasetSettings = pipeline.dataset
        self.corpus = Corpus(pipeline)
        self.saved = directory / TOKENIZER if learned is None else learned
        if learned is None:
            self.tokenizer: Tokenizer = pipeline.tokenizer.build()
        else:
            self.tokenizer = pipeline.tokenizer.offer.implementation().load(learned)

    def make(self) -> None:
        """Make it.

        Raises:
            UserError: the documents do not make a dataset, or there is no room for it.
        """
        begun = time.perf_counter()
        self.tell(f"prepare: {self._kinds()}")
        self.save_tokenizer()
        size = self.corpus.size()
        with bulk_encoding(size) as bulk:
            encoder = Encoder(self.tokenizer, self.saved, self.settings)
            try:
                tallies = self._encode(encoder, bulk, size)
            except EncodersDiffer as differ:
                self.tell(f"prepare: {differ} on these documents; begins again without it")
                for split in AIMS:
                    shutil.rmtree(self.directory / split, ignore_errors=True)
                tallies = self._encode(encoder, bulk, size)
            if encoder.conversations:
                path = self.directory / TEMPLATE
                path.write_text(encoder.template.source, "utf-8", newline="\n")
            written = [*self.directory.rglob("*.npy")]
            with ThreadPoolExecutor(1) as pool:  # digests leave the disk time for other things
                flushed = pool.submit(flush, written)
                self._describe(tallies, bulk.record())
            flushed.result()
        tell_reading(self.corpus.report, self.tell)
        if bulk.why_not is not None:
            self.tell(f"prepare: encoded slowly: {bulk.why_not}")
        train, valid = tallies["train"], tallies["valid"]
        self.tell(
            f"prepare: {train.samples:,} samples of {train.tokens:,} tokens to train on, "
            f"{valid.samples:,} of {valid.tokens:,} to validate on, in "
            f"{time.perf_counter() - begun:.1f} s -> {self.plan.directory}"
            + (f", shard {self.shard}" if self.shard else "")
        )

    def save_tokenizer(self) -> None:
        """Let the tokenizer learn, and save it, unless it was learned before."""
        if not self.saved.is_dir():
            self._fit()
            self.saved.mkdir()
            self.tokenizer.save(self.saved)

    def _kinds(self) -> str:
        assert self.pipeline.documents is not None
        assert self.pipeline.tokenizer is not None
        return (
            f"documents by '{self.pipeline.documents.offer.name}', "
            f"tokens by '{self.pipeline.tokenizer.offer.name}'"
        )

    def _fit(self) -> None:
        """Let the tokenizer learn, and tell how well it compresses if it read any text for that."""
        probe: list[str] = []

        def texts() -> Iterator[str]:
            for split, document in self.corpus:
                if split == "train":
                    text = _plain(document)
                    if not probe or sum(map(len, probe)) < _PROBE:
                        probe.append(text[:_PROBE])
                    yield text

        if memory := self.tokenizer.memory_to_fit(self.corpus.size()):
            self.tell(f"prepare: learns a vocabulary in about {memory / 1e6:,.0f} MB of memory")
        self.tokenizer.fit(texts())
        if probe:
            said = f"prepare: learned {self.tokenizer.vocab_size:,} ids: "
            said += f"{_bytes_a_token(self.tokenizer, probe):.2f} bytes a token"
            with suppress(UserError):  # it or its vocabulary is not installed
                gpt2 = registry().find("tokenizer", "gpt2/gpt2").build(None)
                said += f" (gpt2: {_bytes_a_token(gpt2, probe):.2f})"
            self.tell(said)

    def _validates(self, encoder: Encoder) -> bool:
        """Return whether what is held out makes a sample; a part of a small corpus may be too short."""
        held = (pair for pair in self.corpus if pair[0] == "valid")
        one_by_one = (batch for pair in held for batch in batches([pair]))
        encoded = (part for batch in one_by_one for part in encoder.encode(batch))
        return any(len(encoder.samples(part)[0]) for part in encoded)

    def _encode(self, encoder: Encoder, bulk: Bulk, size: int | None) -> dict[Split, Tally]:
        """Write both splits, and return how much they are."""
        corpus = self.corpus
        corpus.longest = None if bulk.cuts else self.settings.max_document_bytes
        while corpus.is_held_out and corpus.share < 0.5 and not self._validates(encoder):
            corpus.hold_out(min(2 * corpus.share, 0.5))
            self.tell(f"prepare: holds out {corpus.share:g} of the text: less makes no sample")
        dtype = token_dtype(self.tokenizer.vocab_size)
        parts = 1 if self.shard is None else self.shard.of
        if size is not None:
            check_space(self.directory, self._estimate(encoder, size // parts, dtype))
        encoder.conversations = 0
        tallies: dict[Split, Tally] = {split: Tally() for split in AIMS}
        extents = Extents()
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(SplitWriter(self.directory / split, dtype))
                for split in AIMS
            }
            progress = stack.enter_context(Progress(self.tell, size and size // parts))
            read = batches(corpus) if self.shard is None else self.shard.batches(corpus)
            coming = ahead(encoder.encode, read, _AHEAD)
            for each in stack.enter_context(closing(coming)):
                batch, tally, writer = (
                    each.batch,
                    tallies[each.batch.split],
                    writers[each.batch.split],
                )
                samples, tokens = writer.samples, writer.tokens
                tally.bytes += encoder.write(each, writer)
                tally.documents += len(batch.documents) * each.is_last
                extents.add(
                    batch.block, batch.split, writer.samples - samples, writer.tokens - tokens
                )
                progress.advance(batch.text_bytes * each.is_last, len(each.ids))
        for split, writer in writers.items():
            tallies[split].samples, tallies[split].tokens = writer.samples, writer.tokens
        if self.shard is None:
            check_samples(self.pipeline.file, tallies, self.settings.min_sample_length)
        else:
            extents.save(self.directory)
        return tallies

    def _estimate(self, encoder: Encoder, size: int, dtype: np.dtype[Any]) -> int:
        """Return about how many bytes the dataset takes, judged by its first documents."""
        read = made = 0
        for batch in batches(self._first_documents()):
            read += batch.text_bytes
            for encoded in encoder.encode(batch):
                starts, ends = encoder.samples(encoded)
                an_id = dtype.itemsize + (0 if encoded.loss is None else 1)
                made += int((ends - starts).sum()) * an_id
                made += len(starts) * np.dtype(np.int64).itemsize
        return round(size * made / max(read, 1)) + _ROOM

    def _first_documents(self) -> Iterator[tuple[Split, Document]]:
        """Yield the beginnings of documents until they have enough text to judge the others by."""
        characters = 0
        for split, document in self.corpus:
            is_text = document.text is not None
            first = replace(document, text=_plain(document)[:_PROBE]) if is_text else document
            yield split, first
            characters += len(_plain(first))
            if characters >= _PROBE:
                return

    def _describe(self, tallies: Mapping[Split, Tally], encoder: Mapping[str, Any] | None) -> None:
        documents, tokenizer = self.pipeline.documents, self.pipeline.tokenizer
        assert documents is not None
        assert tokenizer is not None
        settings = {} if documents.settings is None else documents.settings.model_dump(mode="json")
        lengths = {
            "max_sample_length": self.settings.max_sample_length,
            "min_sample_length": self.settings.min_sample_length,
        }
        table = {
            "documents_train_file": _paths(settings.get("train")),
            "documents_valid_file": _paths(settings.get("valid")),
            "end_of_document": settings.get("end_of_document"),
            "tokenizer": tokenizer.offer.name,
            "tokenizer_cls_name": type(self.tokenizer).__name__,
            **lengths,
            "datasets_root": self.settings.root.as_posix(),
            "dataset_name": self.pipeline.datasets.name,
        }
        counts = {
            "vocab_size": self.tokenizer.vocab_size,
            **lengths,
            "number_of_empty_documents": self.corpus.report.dropped.get(EMPTY, 0),
            **split_counts(tallies),
        }
        place = {} if self.shard is None else {"shard": [self.shard.index, self.shard.of]}
        describe(
            self.directory,
            SHARD if place else "dataset",
            table,
            counts,
            **place,
            fingerprint=self.plan.fingerprint,
            fields=self.plan.fields,
            **({} if encoder is None else {"encoder": encoder}),
            reading=asdict(self.corpus.report),
            components={
                "reader": record(documents.offer, documents.settings),
                "tokenizer": record(tokenizer.offer, tokenizer.settings),
            },
        )


def tell_reading(report: ReadReport, tell: Callable[[str], None]) -> None:
    """Tell what the reader left out and decided; `fst.json` has all of it."""
    lines = [f"left out {problem}" for problem in report.problems]
    lines += [f"{file}: read as {encoding}" for file, encoding in report.encodings.items()]
    for line in lines[:_TOLD]:
        tell(f"prepare: {line}")
    if len(lines) > _TOLD:
        tell(f"prepare: and {len(lines) - _TOLD:,} more files; fst.json names them")
    if report.dropped:
        counts = (f"{reason}: {count:,}" for reason, count in sorted(report.dropped.items()))
        tell(f"prepare: left out {', '.join(counts)}")


def _bytes_a_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    ids, _ = tokenizer.encode_batch(texts)
    return sum(map(size_of, texts)) / max(len(ids), 1)


def _plain(document: Document) -> str:
    """Return a document as a text, for who learns words from it."""
    if document.messages is None:
        return document.text or ""
    return "\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in document.messages)


def _paths(value: Any) -> Any:
    """Return a single path as a string, several as a list, none as null."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else value or None
    return value
