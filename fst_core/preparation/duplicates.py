"""Documents that came before, found by digests: 16 bytes of memory a document, and 8 to sort them."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fst_core.documents import Document

__all__ = ["first_ones"]

_DIGEST: Final = np.dtype([("high", np.uint64), ("low", np.uint64)])


def first_ones(documents: Iterable[Document]) -> NDArray[np.bool_]:
    """Return which documents are the first of their content, (documents,); labels do not count."""
    digests = bytearray()
    for document in documents:
        digests += blake2b(_content(document), digest_size=_DIGEST.itemsize).digest()
    found = np.frombuffer(digests, _DIGEST)
    order = np.lexsort((found["low"], found["high"]))  # stable: of equal ones the earliest is first
    ordered = found[order]
    first = np.ones(len(found), np.bool_)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return first


def _content(document: Document) -> bytes:
    if document.messages is None:
        return b"text:" + (document.text or "").encode()
    return json.dumps([[turn.role, turn.content] for turn in document.messages]).encode()
