"""Admission: a request is checked, once and whole, and becomes a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fst_core.errors import UnsupportedParameter, UserError
from fst_core.settings import problems, suggestion, validate
from fst_engine.row import Row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_core import Request, Settings, Tokenizer
    from fst_core.interfaces.engine import Samplers

__all__ = ["Admission"]


class Admission:
    """Makes rows of requests to one model with its samplers.

    Raises:
        UserError: two of the samplers have a field of the same name.
    """

    def __init__(self, tokenizer: Tokenizer, samplers: Samplers, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._settings: list[Settings | None] = [settings for _, settings in samplers]
        self._owners: dict[str, int] = {}
        for number, (sampler, settings) in enumerate(samplers):
            for name in type(settings).model_fields if settings is not None else ():
                if name in self._owners:
                    other = type(samplers[self._owners[name]][0]).__name__
                    raise UserError(
                        f"the samplers {other} and {type(sampler).__name__} both have a field "
                        f"{name!r}: leave one of them out"
                    )
                self._owners[name] = number

    def row(self, request: Request) -> Row:
        """Return a request's row.

        Raises:
            UnsupportedParameter: a field of the request cannot be honoured.
            UserError: a value is wrong, or the prompt leaves no room.
        """
        if request.meta is not None:
            raise UnsupportedParameter("meta")
        ids = self._prompt(request)
        room = self._context_length - len(ids)
        if room < 1:
            raise UserError(
                f"the prompt has {len(ids)} ids, and the model takes {self._context_length}, with "
                "what it generates: shorten the prompt"
            )
        wanted = request.max_new_tokens
        if wanted is not None and wanted < 1:
            raise UserError(f"max_new_tokens = {wanted}: should be 1 or more")
        top, vocabulary = request.logprobs, self._tokenizer.vocab_size
        if top is not None and not 0 <= top <= vocabulary:
            raise UserError(f"logprobs = {top}: should be from 0 to {vocabulary}, the vocabulary")
        return Row(
            ids=ids,
            prompt_length=len(ids),
            max_length=len(ids) + min(room, room if wanted is None else wanted),
            seed=request.seed,
            parameters=self._parameters(request.parameters),
            logprobs=top,
        )

    def _prompt(self, request: Request) -> list[int]:
        """Return the ids to go on from.

        Where no control id begins a document, an empty prompt goes on from the one that ends the
        document before.
        """
        prompt = request.prompt
        if isinstance(prompt, str) or not prompt:
            text = prompt if isinstance(prompt, str) else ""
            return self._tokenizer.encode_prompt(text) or [self._tokenizer.end_id]
        ids = [i for i in prompt if isinstance(i, int)]
        if len(ids) < len(prompt):
            raise UnsupportedParameter("prompt", "this engine takes a text or ids, no conversation")
        vocabulary = self._tokenizer.vocab_size
        if bad := [i for i in ids if not 0 <= i < vocabulary]:
            raise UserError(f"prompt: the id {bad[0]} is not in the vocabulary of {vocabulary}")
        return ids

    def _parameters(self, overrides: Mapping[str, Any]) -> tuple[Settings | None, ...]:
        """Return each sampler's settings for one request."""
        merged = list(self._settings)
        for name in overrides:
            if name not in self._owners:
                hint = suggestion(name, self._owners)
                raise UnsupportedParameter(name, f"no sampler has this parameter.{hint}")
        for number, settings in enumerate(self._settings):
            own = {n: value for n, value in overrides.items() if self._owners[n] == number}
            if own and settings is not None:
                cls = type(settings)
                try:
                    merged[number] = validate(cls, settings.model_dump(mode="json") | own)
                except ValidationError as error:
                    lines = (line.strip() for line in problems(error, cls, "", own))
                    raise UserError(" ".join(lines)) from None
        return tuple(merged)
