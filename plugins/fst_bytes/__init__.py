"""The tokenizer `bytes`: nothing to learn, nothing to install, and every text comes back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_tokenizers() -> Iterator[Component]:
    """Offer the tokenizer."""
    yield Component(
        "bytes",
        f"{__name__}.tokenizer:BytesTokenizer",
        "One id a byte of UTF-8: no vocabulary to learn, and no text that it cannot write.",
    )
