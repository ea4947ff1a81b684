"""Tokenizers turn text into ids and ids into text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain, pairwise
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    FlatIds = tuple[NDArray[np.uint32], NDArray[np.int64]]
    """Ids of several texts one after another, (total,), and where each begins, (texts + 1,)."""

__all__ = ["Tokenizer"]


class Tokenizer(ABC):
    """Encodes text to ids and decodes ids to text.

    Two control ids frame a document, and one pads; no text ever encodes to any of them.

    An author writes two modules and an entry point `chars = "fst_tokenizer_chars"` of group `fst`:

        # fst_tokenizer_chars/__init__.py
        from fst_core import Component, hookimpl

        @hookimpl
        def fst_tokenizers():
            yield Component("chars", f"{__name__}.tokenizer:CharTokenizer", "One id a character.")

        # fst_tokenizer_chars/tokenizer.py
        class CharTokenizer(Tokenizer):
            def __init__(self, chars: str = "") -> None:
                self.chars = chars
                self.vocab_size = len(chars) + 2
                self.bos_id, self.end_id, self.pad_id = None, len(chars), len(chars) + 1

            lossy = True            # a character that was not seen in training is left out

            def fit(self, texts):
                self.__init__("".join(sorted(set().union(*texts))))

            def encode(self, text):
                return [i for i in map(self.chars.find, text) if i >= 0]

            def decode(self, ids):
                return "".join(self.chars[i] for i in ids if i < len(self.chars))

            def save(self, directory):
                (directory / "chars.json").write_text(json.dumps(self.chars), "utf-8")

            @classmethod
            def load(cls, directory):
                return cls(json.loads((directory / "chars.json").read_text("utf-8")))
    """

    format: ClassVar[int] = 1
    """Raised when the same settings and texts begin to give other ids."""
    lossy: bool = False
    """Whether decoding may differ from what was encoded; if so, bits per byte mean nothing."""

    vocab_size: int
    """The number of ids, control ids included."""
    bos_id: int | None
    """The control id that begins a document; None if nothing does."""
    end_id: int
    """The control id that ends a document."""
    pad_id: int
    """The control id that pads; it may equal `end_id`, since padding is masked by length."""

    def fit(self, texts: Iterable[str]) -> None:  # noqa: B027  # a published vocabulary has nothing to learn
        """Learn the vocabulary from texts; the default, of a published vocabulary, reads none."""

    def memory_to_fit(self, text_bytes: int | None) -> int:  # noqa: ARG002  # for those that know
        """Return about how many bytes of memory `fit` needs for so much text (None: unknown); 0: few."""
        return 0

    def fingerprint(self) -> str:
        """Return a digest of the files that the settings name; the default has none."""
        return ""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Encode a text, without control ids."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; control ids decode to nothing, cut characters to U+FFFD; never raises."""

    def encode_batch(self, texts: Sequence[str]) -> FlatIds:
        """Encode texts as `encode` does, one after another.

        Returns:
            ids: (total,) uint32; offsets: (len(texts) + 1,) int64, the first 0, the last total.
        """
        return _flatten([self.encode(text) for text in texts])

    def encode_documents(self, texts: Sequence[str]) -> FlatIds:
        """Encode texts as they stand in a dataset: begun with `bos_id`, ended with `end_id`.

        Returns:
            ids: (total,) uint32; offsets: (len(texts) + 1,) int64.
        """
        ids, offsets = self.encode_batch(texts)
        return frame(ids, offsets, self.bos_id, self.end_id)

    def encode_long(self, text: str) -> Iterator[NDArray[np.uint32]]:
        """Yield what `encode_documents` gives of one text, some ids at a time where that saves memory."""
        yield self.encode_documents([text])[0]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode what a generation starts from: a document's beginning; empty text gives bos alone."""
        begin = [] if self.bos_id is None else [self.bos_id]
        return begin + self.encode(text) if text else begin

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything that `load` needs into an existing, empty directory: the same bytes each time."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Read a tokenizer that `save` wrote; needs the directory alone.

        Raises:
            ArtefactError: a file is missing or damaged.
        """


def frame(
    ids: NDArray[np.uint32], offsets: NDArray[np.int64], bos_id: int | None, end_id: int
) -> FlatIds:
    """Put `bos_id` (unless None) before, and `end_id` after, each text of flat ids."""
    before = int(bos_id is not None)
    begin = np.array([] if bos_id is None else [bos_id], np.uint32).tobytes()
    end = np.array([end_id], np.uint32).tobytes()
    # Joined as bytes in one step: numpy would let other threads interrupt it at each text.
    inner = np.ascontiguousarray(ids, np.uint32).data
    parts: Iterator[bytes | memoryview]
    parts = chain.from_iterable((begin, inner[a:b], end) for a, b in pairwise(offsets.tolist()))
    new_offsets = offsets + np.arange(len(offsets)) * (before + 1)
    return np.frombuffer(b"".join(parts), np.uint32), new_offsets


def _flatten(batch: Sequence[Sequence[int]]) -> FlatIds:
    offsets = np.zeros(len(batch) + 1, np.int64)
    np.cumsum([len(ids) for ids in batch], out=offsets[1:])
    flat = np.fromiter((i for ids in batch for i in ids), np.uint32, count=int(offsets[-1]))
    return flat, offsets
