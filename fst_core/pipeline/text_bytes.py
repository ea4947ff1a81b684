"""How many bytes of text are in ids, which bits per byte are counted by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fst_core.interfaces import Tokenizer

__all__ = ["lost_bytes", "margin_of", "size_of"]

_CONTEXT = 8
"""Ids decoded before a cut: more than a character has."""


def size_of(text: str) -> int:
    """Return the UTF-8 bytes of a text."""
    return len(text) if text.isascii() else len(text.encode())


def margin_of(tokenizer: Tokenizer) -> int:
    """Return the bytes, such as those of a space, that a tokenizer puts behind a document's text."""
    ids, _ = tokenizer.encode_documents(["x"])
    return len(tokenizer.decode(ids.tolist()).partition("x")[2].encode())


def lost_bytes(
    tokenizer: Tokenizer, text: str, ids: NDArray[np.uint32], lost: int, margin: int
) -> int:
    """Return the UTF-8 bytes of a document's text in the last `lost` of its ids, even inside a character."""
    size = size_of(text)
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
