"""The vocabulary: the bytes that each id writes, found by nothing but a tokenizer's interface."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from llguidance import LLTokenizer, TokenizerWrapper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fst_core import Tokenizer

__all__ = ["id_bytes", "open_vocabulary"]

_ANCHOR: Final = "a"
"""Ids are decoded behind this letter: the first id of a text may lose the space before it."""
_CUT: Final = "\ufffd"
_PROBES: Final = (
    "\u0380", "\u0800", "\ue000", "\U00010000", "\U00040000", "\U00050000", "\U00060000",
)  # fmt: skip
"""Characters that hardly anybody writes, so that their bytes have ids of their own: all bytes below."""
_BEFORE: Final = (b"", b"\xce", b"\xee", b"\xf1", b"\xf0")
"""What makes characters of the one, two or three bytes with which an id may go on."""
_BEHIND: Final = (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80")
"""What makes a character of the bytes with which an id may end."""


def open_vocabulary(tokenizer: Tokenizer) -> LLTokenizer:
    """Return a tokenizer's vocabulary as llguidance reads it; takes a second for 100,000 ids."""
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)))


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        control = {tokenizer.bos_id, tokenizer.end_id, tokenizer.pad_id}
        self.eos_token_id = tokenizer.end_id
        self.special_token_ids = sorted(i for i in control if i is not None)
        # What writes nothing is never allowed.
        self.tokens = [b"" if i in control else each for i, each in enumerate(id_bytes(tokenizer))]

    def __call__(self, text: bytes) -> list[int]:  # noqa: ARG002  # the signature is llguidance's
        """Return nothing: only the choice of one among several writings would depend on it."""
        return []


def id_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """Return the bytes that each id adds to a text; none where that cannot be told.

    An id may begin or end within a character, which `decode` does not show: such a one is completed
    by ids of single bytes.
    """
    anchor = tokenizer.encode(_ANCHOR)
    if tokenizer.decode(anchor) != _ANCHOR:
        anchor = []
    single = _single_bytes(tokenizer, anchor)
    framed = [
        ([single[byte] for byte in before], [single[byte] for byte in behind])
        for before, behind in product(_BEFORE, _BEHIND)
        if single.keys() >= {*before, *behind}
    ]
    return [
        next(filter(None, _readings(tokenizer, anchor, i, framed)), b"")
        for i in range(tokenizer.vocab_size)
    ]


def _single_bytes(tokenizer: Tokenizer, anchor: list[int]) -> dict[int, int]:
    """Return ids of single bytes, those that complete a character, by their bytes."""
    found: dict[int, int] = {}
    for probe in _PROBES:
        ids = tokenizer.encode(_ANCHOR + probe if anchor else probe)
        own = ids[len(anchor) :]
        if ids[: len(anchor)] == anchor and len(own) == len(probe.encode()):
            found.update(zip(probe.encode(), own, strict=True))
    return found


def _readings(
    tokenizer: Tokenizer, anchor: list[int], i: int, framed: list[tuple[list[int], list[int]]]
) -> Iterator[bytes]:
    """Yield an id's bytes if it decodes to whole characters, alone or among bytes that complete it."""
    start = len(_ANCHOR) if anchor else 0
    for before, behind in framed:
        text = tokenizer.decode([*anchor, *before, i, *behind])
        if anchor and not text.startswith(_ANCHOR):
            return
        if _CUT not in text:
            whole = text.encode()
            yield whole[start + len(before) : len(whole) - len(behind)]
            return
