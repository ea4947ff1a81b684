"""`/v1/completions`: prompts are continued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fst_core.errors import UnsupportedParameter
from fst_fastapi.asked import Asked
from fst_fastapi.errors import wrong_value
from fst_fastapi.events import encode, event, text_event
from fst_fastapi.logprobs import TokenTexts, completion_logprobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fst_core import Chunk, Engine, Generation, Request
    from fst_fastapi.settings import FastapiSettings

    Prompt = str | tuple[int, ...]

__all__ = ["Completion"]


class Completion:
    """One request for completions, and how its answer is written."""

    prompt_field = "prompt"

    def __init__(
        self,
        values: Mapping[str, Any],
        parameters: Mapping[str, Any],
        settings: FastapiSettings,
        head: Mapping[str, Any],
    ) -> None:
        self.asked = Asked(values, parameters, values["max_tokens"], values["logprobs"])
        self.prompts: list[Prompt] = _prompts(values["prompt"])
        self.asked.check(len(self.prompts), settings.max_choices, settings.max_sequences)
        if values["best_of"] not in {None, self.asked.n}:
            raise wrong_value("best_of", f"only n, which is {self.asked.n}, is supported")
        self.echo = bool(values["echo"])
        if self.asked.max_tokens == 0 and not self.echo:
            raise wrong_value("max_tokens", "should be at least 1, but for echo")
        self.stream = bool(values["stream"])
        self.include_usage = bool((values["stream_options"] or {}).get("include_usage"))
        self._token_ids = bool(values["return_token_ids"])
        self._by_ids = bool(values["return_tokens_as_token_ids"])
        self._logprobs = self.asked.logprobs is not None
        # Then the prompt comes with the engine's first chunk.
        self._scored = self.echo and (self._logprobs or self.asked.max_tokens == 0)
        self._head = {"id": f"cmpl-{head['id']}", "object": "text_completion", **_rest(head)}
        self._before: dict[int, int] = {}
        self._offset: dict[int, int] = {}
        self._texts: TokenTexts | None = None
        self._plain: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """How many choices there will be."""
        return len(self.prompts) * self.asked.n

    @property
    def n(self) -> int:
        """How many choices each prompt gets."""
        return self.asked.n

    def prompt_of(self, index: int) -> int:
        """Return the number of the prompt that a choice continues."""
        return index // self.asked.n

    async def requests(self, engine: Engine) -> list[Request]:
        """Return what the engine is asked, in the order of the choices."""
        self._texts = TokenTexts(engine, by_ids=self._by_ids)
        if self._scored or self._token_ids:
            self.prompts = [await self._ids(engine, prompt) for prompt in self.prompts]
        top = (self.asked.logprobs or 0) if self._scored else None
        if not (self._logprobs or self._token_ids):
            choices = (
                {**_choice(index, "TEXT"), "finish_reason": None} for index in range(self.count)
            )
            self._plain = [text_event(self._chunk(choice)) for choice in choices]
        return [each for prompt in self.prompts for each in self.asked.requests(prompt, top)]

    async def opening(self, index: int, engine: Engine) -> bytes:
        """Return the events before a choice's first chunk: the prompt, if it is to be there."""
        prompt = self.prompts[self.prompt_of(index)]
        told: dict[str, Any] = {}
        if self._token_ids:
            told = {"prompt_token_ids": None if isinstance(prompt, str) else list(prompt)}
            told["token_ids"] = []
        echoed = self.echo and not self._scored
        if not echoed and not told:
            return b""
        text = await _text(engine, prompt) if echoed else ""
        self._offset[index] = len(text)
        choice = {**_choice(index, text), **told, "finish_reason": None}
        return event(self._chunk(choice))

    async def event(self, index: int, chunk: Chunk, engine: Engine) -> bytes:
        """Return the events of a chunk."""
        if self._plain and chunk.finish_reason is None:
            before, behind = self._plain[index]
            return f"{before}{encode(chunk.text)}{behind}".encode() if chunk.text else b""
        choice = await self._told(index, chunk, engine)
        return event(self._chunk({**choice, "finish_reason": chunk.finish_reason}))

    async def choice(self, index: int, generation: Generation, engine: Engine) -> dict[str, Any]:
        """Return a choice of a whole answer."""
        prompt = self.prompts[self.prompt_of(index)]
        echoed = ""
        if self.echo and generation.prompt_logprobs is None:
            echoed = await _text(engine, prompt)
            self._offset[index] = len(echoed)
        choice = await self._told(index, generation, engine)
        choice["text"] = echoed + choice["text"]
        if self._token_ids:
            choice["prompt_token_ids"] = None if isinstance(prompt, str) else list(prompt)
        return {**choice, "finish_reason": generation.finish_reason}

    def body(
        self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return a whole answer."""
        return {**self._head, "choices": choices, "usage": usage}

    def usage_event(self, usage: Mapping[str, int]) -> bytes:
        """Return the event that tells a stream's usage."""
        return event({**self._head, "choices": [], "usage": usage})

    async def _ids(self, engine: Engine, prompt: Prompt) -> Prompt:
        try:
            return prompt if not isinstance(prompt, str) else await engine.encode(prompt)
        except UnsupportedParameter:
            if self._scored:
                raise
            return prompt

    async def _told(self, index: int, piece: Chunk | Generation, engine: Engine) -> dict[str, Any]:
        """Return a choice with the log probabilities and ids of a piece of its text."""
        prompt = self.prompts[self.prompt_of(index)]
        scores = piece.prompt_logprobs if self._scored else None
        text = piece.text if scores is None else await _text(engine, prompt) + piece.text
        choice = _choice(index, text)
        if self._logprobs and self._texts is not None:
            entries = [*(scores or ()), *(piece.logprobs or ())]
            offset = self._offset.get(index, 0)
            first = prompt[0] if scores and not isinstance(prompt, str) else None
            choice["logprobs"] = await completion_logprobs(
                entries, first, self._texts, self._before.get(index), offset
            )
            self._offset[index] = offset + len(text)
            if piece.ids:
                self._before[index] = piece.ids[-1]
        if self._token_ids:
            choice["token_ids"] = list(piece.ids)
        return choice

    def _chunk(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        usage = {"usage": None} if self.include_usage else {}
        return {**self._head, "choices": [choice], **usage}


def _choice(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None}


def _rest(head: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in head.items() if name != "id"}


def _prompts(prompt: Any) -> list[Prompt]:
    """Return the prompts of one of the four shapes that the field has."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [each if isinstance(each, str) else tuple(each) for each in prompt]


async def _text(engine: Engine, prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else await engine.decode(prompt)
