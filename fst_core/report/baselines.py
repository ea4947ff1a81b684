"""Baselines: how well plain counting and plain compression predict the held-out text of a dataset."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fst_core.dataset import Dataset, Samples
    from fst_core.interfaces import Tokenizer

__all__ = ["baselines", "ngram_bits", "predicted", "xz_bits_per_byte"]

_MOST: Final = 2**22
"""Ids that are counted; more would take longer than a report is worth."""
_TEXT: Final = 2**20
"""Ids of which the text is compressed."""
_SHORTEST: Final = 10_000
"""Bytes of text that are compressed at least: of fewer, the container is too large a part."""
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)
_MIXER: Final = np.uint64(0xBF58476D1CE4E5B9)


def baselines(dataset: Dataset, tokenizer: Tokenizer) -> dict[str, float]:
    """Return bits per byte of the held-out text by name; nothing for a tokenizer that loses text."""
    valid = dataset.valid
    targets = predicted(valid)
    looked_at = targets[:_MOST]
    if tokenizer.lossy or not valid.text_bytes or not len(dataset.train) or not looked_at.any():
        return {}
    text_bytes = float(valid.text_bytes * looked_at.sum() / targets.sum())
    found = {
        name: float(ngram_bits(dataset.train, valid, tokenizer.vocab_size, order)[looked_at].sum())
        / text_bytes
        for name, order in (("a unigram model", 1), ("a 5-gram model", 5))
    }
    text = tokenizer.decode(valid.corpus[:_TEXT].tolist()).encode()
    return {**found, "xz -9": xz_bits_per_byte(text)} if len(text) >= _SHORTEST else found


def predicted(samples: Samples) -> NDArray[np.bool_]:
    """Return which ids of a corpus a model is measured on, (tokens,): those that carry loss.

    The first id of each sample has none before it.
    """
    counted = np.ones(samples.tokens, np.bool_) if samples.loss is None else samples.loss[:] > 0
    counted[samples.starts] = False
    return counted


def xz_bits_per_byte(text: bytes) -> float:
    """Return the size of a text compressed by `xz -9`, in bits a byte of it."""
    return 8 * len(lzma.compress(text, preset=9)) / len(text)


def ngram_bits(train: Samples, valid: Samples, vocab_size: int, order: int) -> NDArray[np.float64]:
    """Return the bits of the validation corpus' first ids by an n-gram model, (ids,) float64.

    Each order is interpolated with the one below it, the lowest with equal chances (Witten & Bell
    1991, The Zero-Frequency Problem, method C). Both corpora are read as streams, four million
    ids of each at the most.
    """
    counted, unseen = train.corpus[-_MOST:], valid.corpus[:_MOST]
    chances = np.full(len(unseen), 1 / vocab_size)
    pairs = zip(_grams(counted, order), _grams(unseen, order), strict=True)
    for shift, ((contexts, grams), (before, wanted)) in enumerate(pairs):
        if not len(grams):
            break
        kinds, places, counts = np.unique(grams, return_index=True, return_counts=True)
        owners, inverse = np.unique(contexts[places], return_inverse=True)
        seen = np.bincount(inverse, counts)  # c(h): how often a context stands before something
        types = np.bincount(inverse)  # t(h): before how many different ids
        owner, known_owner = _look_up(owners, before)
        kind, known_kind = _look_up(kinds, wanted)
        of_context = np.where(known_owner, seen[owner], 0.0)
        of_types = np.where(known_owner, types[owner], 1.0)  # without a context: the order below
        of_gram = np.where(known_kind, counts[kind], 0.0)
        lower = chances[shift:]
        chances[shift:] = (of_gram + of_types * lower) / (of_context + of_types)
    bits: NDArray[np.float64] = -np.log2(chances)
    return bits


def _grams(
    ids: NDArray[Any], order: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Yield for each length from 1 the hashes of every context and of the context with its id."""
    numbers = ids.astype(np.uint64) + np.uint64(1)
    contexts = np.zeros(len(ids), np.uint64)
    for length in range(1, order + 1):
        grams = _mixed(contexts * _MULTIPLIER + numbers[length - 1 :])
        yield contexts, grams
        contexts = grams[:-1]


def _mixed(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (states ^ (states >> np.uint64(30))) * _MIXER  # arrays of unsigned integers wrap around
    return z ^ (z >> np.uint64(27))


def _look_up(
    keys: NDArray[np.uint64], wanted: NDArray[np.uint64]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return where each wanted key is among sorted ones, and whether it is there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return places, keys[places] == wanted
