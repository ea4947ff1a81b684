"""The sampler `constraint`: texts that a JSON schema or a regular expression allows."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from fst_constraints.grammars import Grammars, reason
from fst_core import Sampler
from fst_core.errors import FstError, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llguidance import LLMatcher

    from fst_constraints.grammars import Source
    from fst_constraints.settings import ConstraintSettings
    from fst_core import Rows, Tokenizer

__all__ = ["ConstraintSampler"]

_REMEMBERED: Final = 64
"""A request that was in none of so many batches is forgotten; if it comes back, it is read anew."""


@dataclass(slots=True)
class _Reading:
    """How far the text of one request was read by its grammar."""

    source: Source
    matcher: LLMatcher
    ids: list[int] = field(default_factory=list)
    """The generated ids that the matcher has read."""
    batch: int = 0
    """The number of the batch that needed it last."""


class ConstraintSampler(Sampler):
    """Rules out the ids that a request's grammar does not allow next.

    Where the text may end, the tokenizer's `end_id` is allowed too, and nothing else where it has to.
    This sampler stands before those that leave likely ids alone, such as `standard`. Grammars are
    those of llguidance, which walks the vocabulary as a tree.
    """

    def __init__(self, settings: ConstraintSettings) -> None:
        self.settings = settings
        self._grammars = Grammars()
        self._readings: OrderedDict[int, _Reading] = OrderedDict()
        """By the requests' keys, those that were needed last at the end."""
        self._batch = 0

    def prepare(self, parameters: ConstraintSettings, tokenizer: Tokenizer) -> None:
        """Read the vocabulary, and compile the grammar of a request.

        Raises:
            UserError: the grammar is wrong, too large, or allows nothing.
        """
        self._grammars.vocabulary(tokenizer)
        if parameters.grammar is not None:
            self._grammars.matcher(parameters.grammar, tokenizer)

    def adjust(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return logits in which what no grammar allows is -inf: (B, V) float32; works in place.

        Raises:
            UserError: a grammar has become too complex, or a text that is complete may not end.
            FstError: what a grammar allows was ruled out before.
        """
        self._batch += 1
        every: Sequence[ConstraintSettings] = rows.parameters
        for row, own in enumerate(every):
            if own.grammar is not None:
                self._constrain(logits[row], own.grammar, rows, row)
        while self._readings:
            key, oldest = next(iter(self._readings.items()))
            if oldest.batch > self._batch - _REMEMBERED:
                break
            del self._readings[key]
        return logits

    def _constrain(self, logits: torch.Tensor, source: Source, rows: Rows, row: int) -> None:
        """Rule ids out of (V,) logits, in place."""
        if rows.tokenizer is None:
            raise FstError(f"{source[0]}: there is no tokenizer that says what ids mean")
        start = rows.prompt_lengths[row] if rows.prompt_lengths else 0
        matcher = self._read(source, rows, row, start)
        allowed = np.zeros(len(logits), np.bool_)
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        if matcher.is_error():
            raise UserError(f"{source[0]}: {reason(matcher.get_error())}")
        shared = min(len(bits), len(allowed))
        allowed[:shared] = bits[:shared]
        logits.masked_fill_(torch.from_numpy(~allowed).to(logits.device), -math.inf)
        if logits.amax() == -math.inf:
            if allowed.nonzero()[0].tolist() == [rows.tokenizer.end_id]:
                raise UserError(
                    f"min_new_tokens: the text is complete, as {source[0]} has it, and may not end yet"
                )
            raise FstError(
                f"{source[0]}: all that it allows was ruled out before; in the pipeline, the sampler "
                "constraint stands before the others"
            )

    def _read(self, source: Source, rows: Rows, row: int, start: int) -> LLMatcher:
        """Return a matcher that has read what a request has generated, each id once."""
        assert rows.tokenizer is not None
        key = rows.keys[row] if rows.keys else None
        history = rows.history[row]
        reading = None if key is None else self._readings.pop(key, None)
        read = 0 if reading is None else len(reading.ids)
        # The same key may be another request's, where a sampler serves two engines.
        if (
            reading is None
            or reading.source != source
            or list(history[start : start + read]) != reading.ids
        ):
            reading = _Reading(source, self._grammars.matcher(source, rows.tokenizer))
        new = list(history[start + len(reading.ids) :])
        if not reading.matcher.consume_tokens(new):
            raise UserError(f"{source[0]}: {reason(reading.matcher.get_error())}")
        reading.ids += new
        reading.batch = self._batch
        if key is not None:
            self._readings[key] = reading
        return reading.matcher
