r"""The text of a file in UTF-8, streamed, whatever the file's encoding.

Every line end becomes \n, and a byte order mark at the start is dropped. What comes out together does
not depend on the size of the chunks.
"""

from __future__ import annotations

import codecs
import io
import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from fst_core.errors import DocumentError
from fst_core.reading.chunks import chunks
from fst_core.reading.guess import guess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.settings import EncodingErrors
    from fst_core.reading.tally import Tally

__all__ = ["UNDECODABLE", "paired", "utf8", "whole"]

UNDECODABLE: Final = "undecodable places"
"""The reason under which runs of bytes that are no text, and halves of characters, are counted."""

_MARK: Final = "\ud800"
"""Stands for bytes that are no text until they are counted; no decoder yields it."""
_HALVES: Final = re.compile("[\ud800-\udfff]+")
_INSTEAD: Final = {"replace": "\ufffd", "skip": ""}


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _MARK, error.end


codecs.register_error("fst.mark", _mark)


def utf8(
    path: Path,
    name: str,
    chunk_bytes: int,
    tally: Tally,
    *,
    encoding: str = "utf-8",
    errors: EncodingErrors = "strict",
) -> Iterator[bytes]:
    r"""Yield a file's text piece by piece, whole characters in UTF-8, every line end turned into \n.

    Raises:
        DocumentError: bytes are no text in that encoding, and `errors` is "strict"; the message has
            `name` and their offset. Or the file is compressed, and damaged.
        OSError: the file cannot be read.
    """
    strict = errors == "strict"
    decode = codecs.getincrementaldecoder(encoding)("strict" if strict else "fst.mark")
    decoder = io.IncrementalNewlineDecoder(decode, translate=True)
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    position = 0
    begun = after_mark = False
    for chunk in chain(chunks(path, name, chunk_bytes), [b""]):
        position += len(chunk)
        piece = _as_it_is(chunk, decoder) if is_utf8 else None
        if piece is None:
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # The object is what the decoder had held back, and this chunk: they end together.
                offset = position - len(error.object) + error.start
                raise DocumentError(
                    f"{name}: not {encoding.upper()} at byte {offset}: {error.reason}. "
                    f"{_remedy(path, name, encoding)}"
                ) from None
            if not strict and text:
                ended_marked = text[-1] == _MARK
                if _MARK in text:
                    text = _mended(text, errors, tally, after_mark=after_mark)
                after_mark = ended_marked
            piece = text.encode()
        elif piece:
            after_mark = False
        if piece and not begun:
            begun = True
            piece = piece.removeprefix(codecs.BOM_UTF8)
        if piece:
            yield piece


def _as_it_is(chunk: bytes, decoder: io.IncrementalNewlineDecoder) -> bytes | None:
    """Return the whole characters of what a decoder of UTF-8 holds back and a chunk; it holds back the rest.

    None if it has to decode them: they are not UTF-8, or hold line ends to turn.
    """
    held, after_return = decoder.getstate()
    data = held + chunk
    if not chunk or after_return or b"\r" in data:
        return None
    try:
        end = len(data) if data.isascii() else codecs.utf_8_decode(data)[1]
    except UnicodeDecodeError:
        return None
    decoder.setstate((data[end:], 0))
    return data[:end]


def whole(text: str, where: str, errors: EncodingErrors, tally: Tally) -> str:
    """Return a text without halves of characters, which JSON can write: runs of them are counted.

    Raises:
        DocumentError: it holds one, and `errors` is "strict"; the message begins with `where`.
    """
    half = _HALVES.search(text)
    if half is None:
        return text
    if errors == "strict":
        raise DocumentError(
            f"{where} holds \\u{ord(half[0][0]):04x}, half a character. "
            'Set encoding_errors to "replace" or "skip"'
        )
    return _mended(text, errors, tally)


def paired(text: str) -> str:
    """Return a text in which pairs of surrogates are one character; halves of characters become U+FFFD."""
    if _HALVES.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mended(text: str, errors: EncodingErrors, tally: Tally, *, after_mark: bool = False) -> str:
    """Return a text without halves of characters.

    Args:
        text: with some, or with marks for bytes that were no text.
        errors: "replace" or "skip".
        tally: where each run of them is counted.
        after_mark: whether the text before this one ended in a run, which goes on here.
    """
    runs = sum(1 for _ in _HALVES.finditer(text))
    tally.count(UNDECODABLE, runs - (after_mark and _HALVES.match(text) is not None))
    return _HALVES.sub(lambda run: _INSTEAD[errors] * len(run[0]), text)


def _remedy(path: Path, name: str, encoding: str) -> str:
    found = guess(path, name)
    if found is None or codecs.lookup(found) == codecs.lookup(encoding):
        return 'Set encoding to what it is, or encoding_errors to "replace" or "skip"'
    return (
        f'It may be {found}: set encoding = "{found}" if every file is, "auto" to choose for each, '
        'or encoding_errors to "replace" or "skip"'
    )
