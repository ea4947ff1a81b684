"""Admission: a request is checked, once and whole, and becomes a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fst_core.errors import PromptTooLong, UserError
from fst_engine.prompts import check_ids
from fst_engine.row import Row

if TYPE_CHECKING:
    from fst_core import Request, Tokenizer
    from fst_engine.parameters import Parameters

__all__ = ["Admission"]

_NUMBERS: Final = {
    "max_new_tokens": True, "seed": False, "logprobs": True, "min_new_tokens": False,
    "prompt_logprobs": True,
}  # fmt: skip
"""The fields that are integers, and whether they may be None."""
_MOST_OF_PROMPT: Final = 100
"""How many likely ids may be reported beside each id of a prompt: a long one has thousands."""


class Admission:
    """Makes rows of requests to one model with its samplers."""

    def __init__(self, tokenizer: Tokenizer, parameters: Parameters, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._parameters = parameters
        self._context_length = context_length

    def row(self, request: Request, ids: list[int], ends: frozenset[int] = frozenset()) -> Row:
        """Return the row of a request whose prompt has these ids, and that these ids end as well.

        Raises:
            PromptTooLong: the prompt leaves no room.
            UserError: a value is wrong.
        """
        for name, optional in _NUMBERS.items():
            value = getattr(request, name)
            if not isinstance(value, int) and not (optional and value is None):
                raise UserError(f"{name} = {value!r}: not an integer")
        vocabulary = self._tokenizer.vocab_size
        _check_range("logprobs", request.logprobs, vocabulary, ", the vocabulary")
        _check_range("prompt_logprobs", request.prompt_logprobs, min(vocabulary, _MOST_OF_PROMPT))
        new = self._new(request, len(ids))
        stops = check_ids(request.stop_ids, vocabulary, "stop_ids")
        return Row(
            ids=ids,
            prompt_length=len(ids),
            max_length=len(ids) + new,
            seed=request.seed,
            parameters=self._parameters.merged(request.parameters),
            ends=ends.union(stops, [self._tokenizer.end_id]),
            min_length=len(ids) + request.min_new_tokens,
            logprobs=request.logprobs,
            prompt_logprobs=request.prompt_logprobs,
        )

    def _new(self, request: Request, prompt_length: int) -> int:
        """Return how many ids a request may generate."""
        wanted, room = request.max_new_tokens, self._context_length - prompt_length
        least = 1 if request.prompt_logprobs is None else 0
        if wanted is not None and wanted < least:
            raise UserError(f"max_new_tokens = {wanted}: should be {least} or more")
        if room < (least if wanted is None else min(wanted, 1)):
            raise PromptTooLong(
                f"the prompt has {prompt_length} ids, and the model takes {self._context_length}, "
                "with what it generates: shorten the prompt"
            )
        new = room if wanted is None else min(room, wanted)
        limit = "max_new_tokens" if new < room else "the room that the prompt leaves"
        _check_range("min_new_tokens", request.min_new_tokens, new, f", {limit}")
        return new


def _check_range(name: str, value: int | None, most: int, what: str = "") -> None:
    if value is not None and not 0 <= value <= most:
        raise UserError(f"{name} = {value}: should be from 0 to {most}{what}")
