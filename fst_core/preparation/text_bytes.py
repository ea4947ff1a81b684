"""How many bytes of text are in ids, which bits per byte are counted by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fst_core.interfaces import Tokenizer

__all__ = ["lost_bytes", "margin_of", "size_of", "utf8_of"]

_PART = 2**20
"""Characters that are encoded at once."""
_CONTEXT = 8
"""Ids decoded before a cut: more than a character has."""


def size_of(text: str) -> int:
    """Return the UTF-8 bytes of a text."""
    if text.isascii():
        return len(text)
    if len(text) <= _PART:
        return len(text.encode())
    # Part by part, as the bytes of a long text are much memory to count.
    return sum(len(text[at : at + _PART].encode()) for at in range(0, len(text), _PART))


def utf8_of(text: str, end: int) -> bytearray:
    """Return the UTF-8 of a text's beginning, without a copy of it on the way."""
    utf8 = bytearray()
    for at in range(0, end, _PART):
        utf8 += text[at : min(at + _PART, end)].encode()
    return utf8


def margin_of(tokenizer: Tokenizer) -> int:
    """Return the bytes, such as those of a space, that a tokenizer puts behind a document's text."""
    ids, _ = tokenizer.encode_documents(["x"])
    return len(tokenizer.decode(ids.tolist()).partition("x")[2].encode())


def lost_bytes(  # noqa: PLR0917  # all of them are of one document
    tokenizer: Tokenizer,
    text: str,
    ids: NDArray[np.uint32],
    lost: int,
    margin: int,
    earlier: int = 0,
) -> int:
    """Return the UTF-8 bytes of a document's text in the last `lost` of its ids, even inside a character.

    Of a long document, `ids` are the last ones, behind `earlier` others.
    """
    size = size_of(text)
    count = earlier + len(ids)
    if lost == count:
        return size
    if tokenizer.lossy:  # an estimate
        return round(size * lost / count)
    ids = ids[-lost - _CONTEXT :]
    whole, kept, rest = (tokenizer.decode(i.tolist()) for i in (ids, ids[:-lost], ids[-lost:]))
    # A cut character is one U+FFFD in what is kept, and in the rest one for each byte.
    inside = max(len(kept) + len(rest) - len(whole), 0)
    behind = len(whole[len(kept) :].encode())
    return min(max(inside + behind - margin, 0), size)
