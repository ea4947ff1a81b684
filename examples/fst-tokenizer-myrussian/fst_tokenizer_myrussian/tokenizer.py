"""The tokenizer `myrussian`: byte-level BPE over marked text."""

from __future__ import annotations

from fst_gpt2 import BpeTokenizer

from fst_tokenizer_myrussian.marks import marked, unmarked

__all__ = ["MyRussianTokenizer"]


class MyRussianTokenizer(BpeTokenizer):
    """Learns its vocabulary from text in which case, ё, quotes and dashes are marks."""

    def normalize(self, text: str) -> str:
        """Write the text with marks, before it is encoded."""
        return marked(text)

    def restore(self, text: str) -> str:
        """Write the text without marks, after it was decoded."""
        return unmarked(text)
