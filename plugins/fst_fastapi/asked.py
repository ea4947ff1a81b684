"""What was asked: the fields of a request that completions and chats have in common."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fst_core import Request
from fst_fastapi.errors import wrong_value

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """The fields of a request that decide what is generated."""

    values: Mapping[str, Any]
    parameters: Mapping[str, Any]
    """Fields of the samplers' settings."""
    max_tokens: int | None
    logprobs: int | None

    @property
    def n(self) -> int:
        """How many choices each prompt gets."""
        return int(self.values["n"])

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings that end a text."""
        stop = self.values["stop"] or ()
        return (stop,) if isinstance(stop, str) else tuple(stop)

    def check(self, prompts: int, max_choices: int, max_sequences: int) -> None:
        """Refuse what is more than the server takes.

        Raises:
            ApiError: n, the number of prompts, or both, are too large.
        """
        if self.n > max_choices:
            raise wrong_value("n", f"at most {max_choices} choices are supported")
        if prompts > max_sequences:
            raise wrong_value("prompt", f"at most {max_sequences} prompts are supported")
        if prompts * self.n > max_sequences:
            raise wrong_value("n", f"prompts times n is at most {max_sequences}")
        most = self.max_tokens
        if most is not None and self.values["min_tokens"] > most:
            raise wrong_value("min_tokens", f"more than max_tokens, which is {most}")
        if self.values["stream_options"] is not None and not self.values["stream"]:
            raise wrong_value("stream_options", "only with stream = true")

    def requests(self, prompt: Any, prompt_logprobs: int | None = None) -> list[Request]:
        """Return what the engine is asked for one prompt: `n` requests, each with its own seed."""
        seed = self.values["seed"]
        first = secrets.randbits(63) if seed is None else seed
        return [
            Request(
                prompt=prompt,
                max_new_tokens=self.max_tokens,
                seed=first + number,
                stop=self.stop,
                parameters=self.parameters,
                logprobs=self.logprobs,
                stop_ids=tuple(self.values["stop_token_ids"] or ()),
                min_new_tokens=self.values["min_tokens"],
                prompt_logprobs=prompt_logprobs,
            )
            for number in range(self.n)
        ]
