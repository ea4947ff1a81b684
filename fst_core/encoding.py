"""Encoding in bulk: the fastest encoder at hand, compared with the reference on the way.

The reference is the library `tokenizers`. `fastokens`, where it is installed, gives the same ids
from the same `tokenizer.json` many times faster; that they are the same is checked on a sample of
the very documents that are encoded.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.errors import one_line
from fst_core.plugins import version_of
from fst_core.safe_cuts import can_be_cut, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from fst_core.interfaces.tokenizer import FlatIds

__all__ = [
    "Bulk",
    "EncodersDiffer",
    "bulk_encoding",
    "current_bulk",
    "encode_by_reference",
    "surrounded",
]

REFERENCE: Final = "tokenizers"
FAST: Final = "fastokens"

_SAMPLE: Final = 2**18
"""Characters that both encoders encode, spread over all texts."""
_EXCERPT: Final = 2**12
"""Characters of one part of the sample."""
_PIECE: Final = 2**18
"""A text of more characters is cut, where that is safe."""
_AT_ONCE: Final = 2**23
"""Characters of the pieces that are encoded together."""
_UNKNOWN: Final = 2**26
"""Characters of a corpus of which nobody knows how long it is; if it is longer, the sample thins out."""


class EncodersDiffer(Exception):
    """The fast encoder gave other ids than the reference; what it encoded must be encoded again."""


_bulk: ContextVar[Bulk | None] = ContextVar("bulk", default=None)


def current_bulk() -> Bulk | None:
    """Return the work in bulk that goes on; None outside of `bulk_encoding`."""
    return _bulk.get()


@contextmanager
def bulk_encoding(characters: int | None) -> Iterator[Bulk]:
    """Let tokenizers of a `tokenizer.json` encode fast inside the block.

    Args:
        characters: about how many will be encoded, over which the sample is spread.
    """
    bulk = Bulk(characters or _UNKNOWN)
    token = _bulk.set(bulk)
    try:
        yield bulk
    finally:
        _bulk.reset(token)


class Bulk:
    """What encodes one corpus, and how it was compared with the reference."""

    def __init__(self, characters: int) -> None:
        self.cuts = False
        """Whether the tokenizer's long texts are encoded in pieces."""
        self.why_not: str | None = None
        """Why the fast encoder is not used; None while it is, or where texts are too few to matter."""
        self._stride = max(characters * _EXCERPT // _SAMPLE, _EXCERPT)
        self._tokenizer: Tokenizer | None = None
        self._description = ""
        self._fast: Any = None
        self._begin()

    def _begin(self) -> None:
        self._seen = 0
        self._next = 0
        self._excerpts = 0
        self._checked_bytes = 0

    def encode(
        self, tokenizer: Tokenizer, texts: Sequence[str], before: str = "", after: str = ""
    ) -> FlatIds:
        """Encode texts one after another, each between `before` and `after`, without control ids.

        Raises:
            EncodersDiffer: the fast encoder is wrong about one of them.
        """
        self._prepare(tokenizer, texts)
        if self.cuts and any(len(text) > _PIECE for text in texts):
            return self._encode_pieces(texts, before, after)
        return self._encode(surrounded(texts, before, after))

    def encode_long(
        self, tokenizer: Tokenizer, text: str, before: str = "", after: str = ""
    ) -> Iterator[NDArray[np.uint32]]:
        """Yield what `encode` returns of one text, some of its ids at a time where it may be cut.

        Raises:
            EncodersDiffer: the fast encoder is wrong about it.
        """
        self._prepare(tokenizer, [text])
        if not self.cuts:
            yield self._encode(surrounded([text], before, after))[0]
            return
        waiting: list[str] = []
        characters = 0
        for piece in _pieces_between(text, before, after):
            waiting.append(piece)
            characters += len(piece)
            if characters >= _AT_ONCE:
                yield self._encode(waiting)[0]
                waiting, characters = [], 0
        yield self._encode(waiting)[0]

    def _prepare(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        """Choose the encoder of texts that come next, and compare it with the reference."""
        if tokenizer is not self._tokenizer:
            self._tokenizer = tokenizer
            self._fast = None
            self._description = tokenizer.to_str()
            self.cuts = can_be_cut(self._description)
        begin = self._seen
        self._seen += sum(map(len, texts))
        if self._fast is None and self.why_not is None and self._seen > _SAMPLE:
            self._fast, self.why_not = _open(self._description)
        if self._fast is not None:
            self._check(texts, begin)

    def _encode(self, texts: Sequence[str]) -> FlatIds:
        assert self._tokenizer is not None
        if self._fast is None:
            return encode_by_reference(self._tokenizer, texts)
        return _encode_fast(self._fast, texts)

    def _encode_pieces(self, texts: Sequence[str], before: str, after: str) -> FlatIds:
        """Encode texts of which some are long, a few pieces at a time, without a copy of the whole."""
        counts: list[int] = []  # of each text's pieces
        lengths = [np.zeros(1, np.int64)]  # of the pieces in ids
        parts: list[np.ndarray[Any, np.dtype[np.uint32]]] = []
        waiting: list[str] = []
        characters = 0

        def encode() -> None:
            nonlocal waiting, characters
            ids, offsets = self._encode(waiting)
            parts.append(ids)
            lengths.append(np.diff(offsets))
            waiting, characters = [], 0

        for text in texts:
            count = 0
            for piece in _pieces_between(text, before, after):
                waiting.append(piece)
                characters += len(piece)
                count += 1
                if characters >= _AT_ONCE:
                    encode()
            counts.append(count)
        encode()
        ends = np.cumsum(np.concatenate(lengths))
        return np.concatenate(parts), ends[[0, *accumulate(counts)]]

    def _check(self, texts: Sequence[str], begin: int) -> None:
        """Compare the encoders on what of the sample lies in these texts, the first of which is at `begin`."""
        excerpts: list[str] = []
        for text in texts:
            while self._next < begin + len(text):
                at = max(min(self._next - begin, len(text) - _EXCERPT), 0)
                excerpts.append(text[at : at + _EXCERPT])
                self._excerpts += 1
                if self._excerpts % (_SAMPLE // _EXCERPT) == 0:  # longer than was said
                    self._stride *= 2
                self._next += self._stride
            begin += len(text)
        if not excerpts:
            return
        assert self._tokenizer is not None
        expected = encode_by_reference(self._tokenizer, excerpts)
        found = _encode_fast(self._fast, excerpts)
        if not (np.array_equal(expected[0], found[0]) and np.array_equal(expected[1], found[1])):
            self.why_not = f"{_named(FAST)} gives other ids than {_named(REFERENCE)}"
            self._fast = None
            self._begin()
            raise EncodersDiffer(self.why_not)
        self._checked_bytes += sum(len(excerpt.encode()) for excerpt in excerpts)

    def record(self) -> dict[str, Any] | None:
        """Return what a dataset says of its encoder; None if no `tokenizer.json` was at work."""
        if self._tokenizer is None:
            return None
        if self._fast is None:
            said: dict[str, Any] = {"used": _named(REFERENCE)}
            return said | ({} if self.why_not is None else {"why": self.why_not})
        return {
            "used": _named(FAST),
            "equal_to": _named(REFERENCE),
            "on_bytes": self._checked_bytes,
            "tokenizer_sha256": hashlib.sha256(self._description.encode()).hexdigest(),
        }


def _pieces_between(text: str, before: str, after: str) -> Iterator[str]:
    """Cut a text; its first piece gets `before`, its last one `after`."""
    cut = pieces(text, _PIECE)
    held = before + next(cut)
    for piece in cut:
        yield held
        held = piece
    yield held + after


def surrounded(texts: Sequence[str], before: str, after: str) -> Sequence[str]:
    """Return texts between two others."""
    return [f"{before}{text}{after}" for text in texts] if before or after else texts


def encode_by_reference(tokenizer: Tokenizer, texts: Sequence[str]) -> FlatIds:
    """Encode texts with the library `tokenizers`, on every core.

    Returns:
        ids: (total,) uint32; offsets: (len(texts) + 1,) int64.
    """
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    offsets = np.zeros(len(encodings) + 1, np.int64)
    np.cumsum([len(encoding) for encoding in encodings], out=offsets[1:])
    ids = chain.from_iterable(encoding.ids for encoding in encodings)
    return np.fromiter(ids, np.uint32, count=int(offsets[-1])), offsets


def _encode_fast(fast: Any, texts: Sequence[str]) -> FlatIds:
    ids, offsets = fast.encode_batch_flat(list(texts), split_special_tokens=True)
    return np.frombuffer(ids, "<u4"), np.frombuffer(offsets, "<u8").astype(np.int64)


def _open(description: str) -> tuple[Any, str | None]:
    """Return the fast encoder of a tokenizer.json, or why there is none."""
    try:
        import fastokens  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        return None, f"{FAST} is not installed"
    try:
        return fastokens.Tokenizer.from_json_str(description), None
    except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
        return None, f"{_named(FAST)} cannot read this tokenizer: {one_line(error)}"


def _named(package: str) -> str:
    return f"{package} {version_of(package)}"
