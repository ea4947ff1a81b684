"""Batches: documents that are encoded together, and the samples that they become."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fst_core.chat import ChatTemplate
from fst_core.conversations import Conversations
from fst_core.dataset import cut
from fst_core.errors import DocumentError, FstError, UserError
from fst_core.meta import encode_meta
from fst_core.preparation.text_bytes import lost_bytes, margin_of, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from fst_core.dataset import SplitWriter
    from fst_core.documents import Document, Split
    from fst_core.interfaces import Tokenizer
    from fst_core.pipeline.pipeline import DatasetSettings

__all__ = ["Batch", "Encoded", "Encoder", "batches"]

CHARACTERS = 2**20
"""Documents are encoded together until they have this many characters."""
LONG = 2**24
"""A text of more characters is encoded and written in parts, where its tokenizer can."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of one split on their way through the threads: texts alone, or conversations alone."""

    split: Split
    documents: list[Document]
    text_bytes: int
    block: int = 0
    """Which block of the documents these are of, where they are dealt to shards."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The ids of a batch, or of a part of its only document."""

    batch: Batch
    ids: NDArray[np.uint32]
    """(total,) of all documents, or of all lessons of the conversations."""
    offsets: NDArray[np.int64]
    """Where each of them begins, and the end of the last."""
    loss: NDArray[np.uint8] | None = None
    """(total,) 1 for each id that carries loss; None: all do."""
    earlier: int = 0
    """How many ids of the only document earlier parts had."""
    is_last: bool = True
    """Whether the batch ends here."""


def batches(documents: Iterable[tuple[Split, Document]]) -> Iterator[Batch]:
    """Gather documents of a split, so that many are encoded at once and memory stays bounded."""
    waiting: dict[Split, list[Document]] = {"train": [], "valid": []}
    sizes: dict[Split, int] = {"train": 0, "valid": 0}
    for split, document in documents:
        gathered = waiting[split]
        text = document.text
        characters = _spoken(document, len) if text is None else len(text)
        # One that is written in parts stands alone.
        if gathered and ((gathered[0].text is None) != (text is None) or characters > LONG):
            yield _batch(split, gathered)
            gathered = waiting[split] = []
            sizes[split] = 0
        gathered.append(document)
        sizes[split] += characters
        if sizes[split] >= CHARACTERS or characters > LONG:
            yield _batch(split, gathered)
            waiting[split] = []
            sizes[split] = 0
    for split, gathered in waiting.items():
        if gathered:
            yield _batch(split, gathered)


def _batch(split: Split, documents: list[Document]) -> Batch:
    texts = (document.text for document in documents)
    sizes = (size_of(text) for text in texts if text is not None)
    spoken = (_spoken(document, size_of) for document in documents)
    return Batch(split, documents, sum(spoken if documents[0].text is None else sizes))


def _spoken(document: Document, size: Callable[[str], int]) -> int:
    return sum(size(message.content) for message in document.messages or ())


class Encoder:
    """Encodes batches, and writes what they become."""

    def __init__(self, tokenizer: Tokenizer, saved: Path, settings: DatasetSettings) -> None:
        self.tokenizer = tokenizer
        self._saved = saved
        self.longest = settings.max_sample_length
        self.shortest = settings.min_sample_length
        self.conversations = 0
        """How many were encoded."""
        self._margin = margin_of(tokenizer)

    @cached_property
    def template(self) -> ChatTemplate:
        """What conversations are written by; that of the saved tokenizer, if it has one."""
        return ChatTemplate.to_learn(self._saved, self.tokenizer)

    @cached_property
    def _lessons(self) -> Conversations:
        return Conversations(self.template, self.tokenizer, self.longest)

    def encode(self, batch: Batch) -> Iterable[Encoded]:
        """Encode documents, all at once; a single one that is very long while its parts are taken.

        Raises:
            DocumentError: the chat template fails on a conversation.
        """
        first = batch.documents[0]
        if first.text is None:
            return [self._encode_conversations(batch)]
        if len(first.text) > LONG:
            return self._encode_long(batch)
        encoded = Encoded(batch, *self.tokenizer.encode_documents(_texts(batch)))
        labelled = any(document.meta for document in batch.documents)
        return [self._with_meta(encoded) if labelled else encoded]

    def _encode_long(self, batch: Batch) -> Iterator[Encoded]:
        """Encode one text in parts of whole samples; the last part has at least one, and the rest."""
        (text,) = _texts(batch)
        label = self._label(batch.documents[0].meta)
        waiting = np.empty(0, np.uint32)
        masked = earlier = 0
        for index, ids in enumerate(self.tokenizer.encode_long(text)):
            waiting = np.concatenate((waiting, ids))
            if index == 0 and len(label):
                begun = int(self.tokenizer.bos_id is not None)
                waiting = np.concatenate((ids[:begun], label, ids[begun:]))
                masked = begun + len(label)
            whole = max((len(waiting) // self.longest - 1) * self.longest, 0)
            if whole > masked:
                part, waiting = waiting[:whole], waiting[whole:]
                loss = _masked(whole, masked)
                yield Encoded(batch, part, np.array([0, whole]), loss, earlier, is_last=False)
                earlier, masked = earlier + whole, 0
        loss = _masked(len(waiting), masked)
        yield Encoded(batch, waiting, np.array([0, len(waiting)]), loss, earlier)

    def _encode_conversations(self, batch: Batch) -> Encoded:
        self.conversations += len(batch.documents)
        parts, masks = [np.empty(0, np.uint32)], [np.empty(0, np.uint8)]
        for document in batch.documents:
            assert document.messages is not None
            try:
                for ids, loss in self._lessons.lessons(document.messages, document.meta):
                    parts.append(ids)
                    masks.append(loss)
            except UserError:  # something is not installed
                raise
            except FstError as error:
                raise DocumentError(f"{document.source}: {error}") from None
        offsets = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return Encoded(batch, np.concatenate(parts), offsets, np.concatenate(masks))

    def _with_meta(self, encoded: Encoded) -> Encoded:
        """Put labels behind the `bos_id`, from where on nothing carries loss until the text begins."""
        begun = int(self.tokenizer.bos_id is not None)
        ids, masks, lengths = [], [], [0]
        places = zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)
        for document, (start, end) in zip(encoded.batch.documents, places, strict=True):
            label = self._label(document.meta)
            before = begun * (len(label) > 0)
            ids += [encoded.ids[start : start + before], label, encoded.ids[start + before : end]]
            masks.append(np.ones(end - start + len(label), np.uint8))
            masks[-1][: before + len(label)] = 0
            lengths.append(len(masks[-1]))
        offsets = np.cumsum(lengths, dtype=np.int64)
        return Encoded(encoded.batch, np.concatenate(ids), offsets, np.concatenate(masks))

    def _label(self, meta: str | None) -> NDArray[np.uint32]:
        return np.array(encode_meta(self.tokenizer, meta), np.uint32)

    def samples(self, encoded: Encoded) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the samples begin and end, each of which has something to learn."""
        starts, ends = cut(encoded.offsets, self.longest, self.shortest)
        if encoded.loss is None:
            return starts, ends
        learned = np.concatenate(([0], np.cumsum(encoded.loss, dtype=np.int64)))
        # Nothing is before the first id of a sample to predict it by.
        some = learned[ends] > learned[np.minimum(starts + 1, ends)]
        return starts[some], ends[some]

    def write(self, encoded: Encoded, writer: SplitWriter) -> int:
        """Write the samples, and return the bytes of text in them that carry loss."""
        starts, ends = self.samples(encoded)
        writer.write(encoded.ids, starts, ends, encoded.loss)
        if encoded.batch.documents[0].text is not None:
            return encoded.batch.text_bytes - self._lost(encoded) if encoded.is_last else 0
        assert encoded.loss is not None
        learned = (
            encoded.ids[start:end][encoded.loss[start:end] == 1]
            for start, end in zip(starts, ends, strict=True)
        )
        return sum(len(self.tokenizer.decode(ids.tolist()).encode()) for ids in learned)

    def _lost(self, encoded: Encoded) -> int:
        """Return the bytes of texts that are in no sample."""
        texts, ids, offsets = _texts(encoded.batch), encoded.ids, encoded.offsets
        rests = np.diff(offsets) % self.longest
        lost = np.where(rests < self.shortest, rests, 0)
        return sum(
            lost_bytes(
                self.tokenizer,
                texts[i],
                ids[offsets[i] : offsets[i + 1]],
                int(lost[i]),
                self._margin,
                encoded.earlier,
            )
            for i in np.flatnonzero(lost)
        )


def _masked(length: int, masked: int) -> NDArray[np.uint8] | None:
    """Return the loss of ids of which the first carry none; None if there are no such."""
    if not masked:
        return None
    loss = np.ones(length, np.uint8)
    loss[:masked] = 0
    return loss


def _texts(batch: Batch) -> list[str]:
    return [document.text or "" for document in batch.documents]
