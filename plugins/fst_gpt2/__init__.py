"""Byte-level BPE: the published vocabulary of GPT-2, and vocabularies trained on the user's documents.

`BpeTokenizer` and `GPT2Tokenizer` are public: a subclass that overrides `normalize` and `restore` is
a tokenizer of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fst_gpt2.bpe import BpeTokenizer
    from fst_gpt2.gpt2 import GPT2Tokenizer

__all__ = ["BpeTokenizer", "GPT2Tokenizer"]


@hookimpl
def fst_tokenizers() -> Iterator[Component]:
    """Offer the tokenizers."""
    yield Component(
        "gpt2",
        f"{__name__}.gpt2:GPT2Tokenizer",
        "The published vocabulary of GPT-2.",
        settings=f"{__name__}.settings:GPT2Settings",
        needs=("tokenizers",),
    )
    yield Component(
        "bpe",
        f"{__name__}.bpe:BpeTokenizer",
        "Byte-level BPE, trained on your documents.",
        settings=f"{__name__}.settings:BpeSettings",
        needs=("tokenizers",),
    )


def __getattr__(name: str) -> Any:  # no __dir__ beside it: whoever lists the hooks would import all
    if name == "BpeTokenizer":
        from fst_gpt2.bpe import BpeTokenizer

        return BpeTokenizer
    if name == "GPT2Tokenizer":
        from fst_gpt2.gpt2 import GPT2Tokenizer

        return GPT2Tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
