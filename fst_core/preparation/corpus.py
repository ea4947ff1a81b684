"""The corpus: the documents of a pipeline, each in its split, the same ones at every reading."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any

from fst_core.chance import uniform
from fst_core.conversations import is_answered
from fst_core.documents import ReadReport, place_of_cut
from fst_core.errors import DocumentError, UserError
from fst_core.memory import give_back_freed
from fst_core.preparation.duplicates import first_ones
from fst_core.preparation.held_out import HeldOut
from fst_core.preparation.text_bytes import size_of, utf8_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from fst_core.documents import Document, Split
    from fst_core.interfaces import Reader
    from fst_core.pipeline.pipeline import Pipeline

__all__ = ["AIMS", "Corpus"]

AIMS: Mapping[Split, str] = {"train": "train", "valid": "validate"}
"""What the documents of a split are for, in messages."""
_UNANSWERED = "conversations without an answer"
_DUPLICATES = "duplicates"


class Corpus:
    """Reads the documents of a pipeline again and again.

    Iterating yields each with its split. Left out, and counted in `report`, are conversations in
    which nobody answers, and documents that came before, where the settings say so.

    Raises:
        UserError: there is no document of some split.
        DocumentError: a document cannot be read.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        assert pipeline.documents is not None
        self.file = pipeline.file
        self.settings = pipeline.dataset
        self.seed = pipeline.run.seed
        self.reader: Reader = pipeline.documents.build()
        self.share = self.settings.valid_share
        """The share that is held out, where the reader has no valid split."""
        self.longest: int | None = None
        """Bytes of the longest document that can be encoded; None if there is no bound."""
        self.report = ReadReport()
        """What the last complete reading left out and decided."""
        self._unanswered = 0
        self._first: dict[Split, NDArray[Any]] = {}
        self._held: HeldOut | None = None
        if self.settings.deduplicate:
            self._first = self._unique()
        self._look()

    def __iter__(self) -> Iterator[tuple[Split, Document]]:
        report = ReadReport()
        for split in self.reader.splits():
            if self._held is not None and self._held.single:
                yield from self._cut(self._documents(split))
            else:
                held = repeat(False) if self._held is None else iter(self._held)
                for document in self._documents(split):
                    self._check_length(document)
                    yield ("valid" if next(held) else split), document
            report += self.reader.report()
            report += ReadReport(self._left_out(split))
        self.report = report

    @property
    def is_held_out(self) -> bool:
        """Whether a share of the training documents is held out."""
        return self._held is not None

    def hold_out(self, share: float) -> None:
        """Hold out another share of the training documents."""
        self.share = share
        self._held = HeldOut(self._documents("train"), share, self.seed)

    def size(self) -> int | None:
        """Return about how many bytes of documents there are; None if the reader does not know."""
        sizes = [self.reader.size(split) for split in self.reader.splits()]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def _look(self) -> None:
        """Look at the first documents: whether there are any, and which are held out."""
        for split in self.reader.splits():
            if next(self._documents(split), None) is None:
                problems = self.reader.report().problems
                why = f": left out {problems[0]}" if problems else ""
                raise UserError(
                    f"{self.file} [documents]: there is no document to {AIMS[split]} on{why}"
                )
        if "valid" not in self.reader.splits():
            self.hold_out(self.share)

    def _documents(self, split: Split) -> Iterator[Document]:
        """Yield what a split's documents are before any is held out."""
        documents = self.reader.read(split)
        if split in self._first:
            documents = compress(documents, self._first[split].tolist())
        self._unanswered = 0
        ignored = self.settings.ignore_meta_prob
        for index, document in enumerate(documents):
            if document.messages is not None and not is_answered(document.messages):
                self._unanswered += 1
                continue
            # Other indices than those that decide what is held out.
            if ignored and document.meta and uniform(self.seed, ~index) < ignored:
                yield replace(document, meta=None)
            else:
                yield document

    def _left_out(self, split: Split) -> dict[str, int]:
        left_out = {_UNANSWERED: self._unanswered}
        if split in self._first:
            left_out[_DUPLICATES] = int((~self._first[split]).sum())
        return left_out

    def _unique(self) -> dict[Split, NDArray[Any]]:
        """Return which documents of each split came neither before in it nor in the one before it."""
        splits = self.reader.splits()
        counts: list[int] = []

        def documents() -> Iterator[Document]:
            for split in splits:
                counts.append(0)
                for document in self.reader.read(split):
                    counts[-1] += 1
                    yield document

        first = first_ones(documents())
        return {
            split: first[sum(counts[:n]) : sum(counts[: n + 1])] for n, split in enumerate(splits)
        }

    def _cut(self, documents: Iterator[Document]) -> Iterator[tuple[Split, Document]]:
        """Yield the parts of the only document there is; it may be most of the memory."""
        document = next(documents)
        for _ in documents:  # it ends, and whoever read the document forgets it
            pass
        self._check_length(document)
        if document.text is None:
            raise UserError(
                f"{self.file} [documents]: there is one conversation alone. Add others, or name "
                "valid documents."
            )
        give_back_freed()  # of the reader's, which are as much as the document
        end, begin = place_of_cut(document.text, self.share)
        valid = replace(document, text=document.text[begin:])
        # Of long texts UTF-8 is less than a second string.
        utf8 = utf8_of(document.text, end)
        del document
        parts = [replace(valid, text=utf8.decode()), valid]
        del utf8, valid
        yield "train", parts.pop(0)
        yield "valid", parts.pop(0)

    def _check_length(self, document: Document) -> None:
        text = document.text
        if text is None or self.longest is None or 4 * len(text) <= self.longest:
            return
        if (size := size_of(text)) > self.longest:
            raise DocumentError(
                f"{document.source}: a document of {size:,} bytes, more than max_document_bytes = "
                f"{self.longest:,}, and this tokenizer cannot encode it in pieces. Cut it, or raise "
                "the bound: memory is some ten times as much."
            )
