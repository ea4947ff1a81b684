"""Words that a request does not want to read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from fst_core import Rows, Tokenizer

__all__ = ["ignore_words"]

_BEFORE: Final = 8
"""Of how many ids before a word its last character is found; a character may have several."""


def ignore_words(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Rule out, in place, the id that would complete an ignored word.

    A word is what the tokenizer encodes it to, with and without a space before it; the latter counts
    where no letter or digit precedes. Longer words that begin with those ids are ruled out as well,
    and another spelling of the word in ids is not.
    """
    if rows.tokenizer is None:
        return logits
    known: dict[str, tuple[list[int], list[int]]] = {}
    for row, parameters in enumerate(rows.parameters):
        for word in parameters.ignored_words:
            if word not in known:
                known[word] = rows.tokenizer.encode(f" {word}"), rows.tokenizer.encode(word)
            spaced, bare = known[word]
            history = rows.history[row]
            if _completes(history, spaced):
                logits[row, spaced[-1]] = -math.inf
            if _completes(history, bare) and _at_word_start(history, bare, rows.tokenizer):
                logits[row, bare[-1]] = -math.inf
    return logits


def _completes(history: Sequence[int], word: Sequence[int]) -> bool:
    """Say whether one id more would complete the ids of a word."""
    begun = len(word) - 1
    return begun >= 0 and list(history[len(history) - begun :]) == list(word[:-1])


def _at_word_start(history: Sequence[int], word: Sequence[int], tokenizer: Tokenizer) -> bool:
    before = len(history) - len(word) + 1
    text = tokenizer.decode(history[max(0, before - _BEFORE) : before])
    return not text[-1:].isalnum()
