"""A tokenizer for Russian text, as a plugin of FST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_tokenizers() -> Iterator[Component]:
    """Offer the tokenizer."""
    yield Component(
        "myrussian",
        f"{__name__}.tokenizer:MyRussianTokenizer",
        "Byte-level BPE that learns a Russian word once: case, ё, quotes and dashes are marks.",
        settings="fst_gpt2.settings:BpeSettings",
        needs=("tokenizers",),
    )
