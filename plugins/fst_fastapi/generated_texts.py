"""`/generated_texts/`: the route of FST's predecessor, in both of its dialects."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fst_core import Request
from fst_fastapi.errors import wrong_value
from fst_fastapi.field_table import OLD_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fst_core import Chunk, Engine, Generation
    from fst_fastapi.settings import FastapiSettings

__all__ = ["GeneratedTexts"]


class GeneratedTexts:
    """One request for texts, and how its answer is written; it is never a stream."""

    stream = False
    include_usage = False

    def __init__(
        self,
        values: Mapping[str, Any],
        parameters: Mapping[str, Any],
        settings: FastapiSettings,
        _: Mapping[str, Any],
    ) -> None:
        seed, body = values["seed_text"], values["body"]
        if seed is not None and body is not None:
            raise wrong_value("body", "give either a seed_text or a body")
        self.prompt_field = "body" if seed is None else "seed_text"
        later = values["max_number_of_generated_tokens"]
        self.count = self.n = int(values["num_return_sequences"])
        most = min(settings.max_sequences, 4 * settings.max_choices)
        if self.count > most:
            raise wrong_value("num_return_sequences", f"at most {most} texts are supported")
        first = secrets.randbits(63)
        self._requests = [
            Request(
                prompt=(body if seed is None else seed) or "",
                max_new_tokens=values["generation_max_len"] if later is None else later,
                seed=first + number,
                parameters=parameters,
                meta=values["meta"],
            )
            for number in range(self.count)
        ]

    async def requests(self, engine: Engine) -> list[Request]:
        """Return what the engine is asked; the route's defaults hold where samplers have such fields."""
        known = engine.describe().get("sampling") or {}
        usual = {name: value for name, value in OLD_DEFAULTS.items() if name in known}
        return [replace(each, parameters={**usual, **each.parameters}) for each in self._requests]

    async def choice(self, index: int, generation: Generation, engine: Engine) -> str:  # noqa: ARG002  # a completion's need them
        """Return a text."""
        return generation.text

    def body(self, choices: Sequence[str], usage: Mapping[str, int]) -> dict[str, Any]:  # noqa: ARG002  # the same
        """Return a whole answer."""
        return {"texts": choices}

    async def opening(self, index: int, engine: Engine) -> bytes:
        """Never asked for."""
        raise NotImplementedError

    async def event(self, index: int, chunk: Chunk, engine: Engine) -> bytes:
        """Never asked for."""
        raise NotImplementedError

    def usage_event(self, usage: Mapping[str, int]) -> bytes:
        """Never asked for."""
        raise NotImplementedError
