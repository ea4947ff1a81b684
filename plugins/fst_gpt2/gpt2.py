"""The tokenizer `gpt2`: the published vocabulary, and three control tokens after it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from fst_gpt2.bpe import CONTROL, BpeTokenizer, byte_level
from fst_gpt2.published import DIGEST, SIZE, published, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fst_core.tokenizer_json import TokenizerJson
    from fst_gpt2.settings import GPT2Settings

__all__ = ["GPT2Tokenizer"]


class GPT2Tokenizer(BpeTokenizer):
    """The 50,257 ids of GPT-2 (Radford et al. 2019), then `[DOC_START]`, `[DOC_END]` and `[PAD]`.

    GPT-2's own control token, 50256, is an id like any other here, which no text yields either. The
    vocabulary is read when it is first needed, so that a saved tokenizer needs its directory alone.
    """

    def __init__(self, settings: GPT2Settings | None = None) -> None:
        self._path = settings.path if settings else None
        self._count(SIZE + len(CONTROL))

    @cached_property
    def _file(self) -> TokenizerJson:
        return byte_level(published(self._path))

    def fit(self, texts: Iterable[str]) -> None:
        """Read no text: the vocabulary is published."""

    def memory_to_fit(self, text_bytes: int | None) -> int:  # noqa: ARG002  # it reads no text
        """Return 0: there is nothing to learn."""
        return 0

    def fingerprint(self) -> str:
        """Return the digest of the published vocabulary, the only one there is."""
        read(self._path)  # what is missing should be said before the work begins
        return DIGEST
