"""`/v1/chat/completions`: the model takes its turn in a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fst_core import Message
from fst_fastapi.asked import Asked
from fst_fastapi.errors import wrong_value
from fst_fastapi.events import encode, event, text_event
from fst_fastapi.logprobs import TokenTexts, chat_logprobs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fst_core import Chunk, Engine, Generation, Request
    from fst_fastapi.settings import FastapiSettings

__all__ = ["Chat", "messages_of"]


class Chat:
    """One request for a turn of a conversation, and how its answer is written."""

    prompt_field = "messages"

    def __init__(
        self,
        values: Mapping[str, Any],
        parameters: Mapping[str, Any],
        settings: FastapiSettings,
        head: Mapping[str, Any],
    ) -> None:
        most = values["max_completion_tokens"]
        top, wanted = values["top_logprobs"], bool(values["logprobs"])
        if top is not None and not wanted:
            raise wrong_value("top_logprobs", "only with logprobs = true")
        self.asked = Asked(
            values,
            parameters,
            values["max_tokens"] if most is None else most,
            (top or 0) if wanted else None,
        )
        self.asked.check(1, settings.max_choices, settings.max_sequences)
        self.messages = messages_of(values["messages"])
        self.stream = bool(values["stream"])
        self.include_usage = bool((values["stream_options"] or {}).get("include_usage"))
        self._token_ids = bool(values["return_token_ids"])
        self._by_ids = bool(values["return_tokens_as_token_ids"])
        self._logprobs = wanted
        self._head = {**head, "id": f"chatcmpl-{head['id']}"}
        self._before: dict[int, int] = {}
        self._texts: TokenTexts | None = None
        self._plain: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """How many choices there will be."""
        return self.asked.n

    @property
    def n(self) -> int:
        """How many choices each prompt gets."""
        return self.asked.n

    async def requests(self, engine: Engine) -> list[Request]:
        """Return what the engine is asked, in the order of the choices."""
        self._texts = TokenTexts(engine, by_ids=self._by_ids)
        if not (self._logprobs or self._token_ids):
            deltas = (self._chunk(index, {"content": "TEXT"}) for index in range(self.count))
            self._plain = [text_event(delta) for delta in deltas]
        return self.asked.requests(self.messages)

    async def opening(self, index: int, engine: Engine) -> bytes:  # noqa: ARG002  # a completion's needs it
        """Return the event before a choice's first chunk, which says who speaks."""
        return event(self._chunk(index, {"role": "assistant", "content": ""}))

    async def event(self, index: int, chunk: Chunk, engine: Engine) -> bytes:  # noqa: ARG002  # the same
        """Return the events of a chunk; the last of a choice has no text."""
        told = b""
        if self._plain and chunk.text:
            before, behind = self._plain[index]
            told = f"{before}{encode(chunk.text)}{behind}".encode()
        elif chunk.text or chunk.ids:
            more = await self._more(index, chunk.logprobs, chunk.ids)
            told = (
                b"" if self._plain else event(self._chunk(index, {"content": chunk.text}, **more))
            )
        if chunk.finish_reason is None:
            return told
        return told + event(self._chunk(index, {}, finish_reason=chunk.finish_reason))

    async def choice(self, index: int, generation: Generation, engine: Engine) -> dict[str, Any]:  # noqa: ARG002  # the same
        """Return a choice of a whole answer."""
        return {
            "index": index,
            "message": {"role": "assistant", "content": generation.text, "refusal": None},
            "logprobs": None,
            **await self._more(index, generation.logprobs, generation.ids),
            "finish_reason": generation.finish_reason,
        }

    def body(
        self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return a whole answer."""
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def usage_event(self, usage: Mapping[str, int]) -> bytes:
        """Return the event that tells a stream's usage."""
        return event(
            {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage}
        )

    async def _more(self, index: int, chosen: Any, ids: Sequence[int]) -> dict[str, Any]:
        """Return what of log probabilities and ids was asked for."""
        more: dict[str, Any] = {}
        if self._logprobs and self._texts is not None:
            content = await chat_logprobs(chosen or (), self._texts, self._before.get(index))
            more["logprobs"] = {"content": content, "refusal": None}
            if ids:
                self._before[index] = ids[-1]
        if self._token_ids:
            more["token_ids"] = list(ids)
        return more

    def _chunk(self, index: int, delta: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        usage = {"usage": None} if self.include_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **usage}


def messages_of(written: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Return the turns of a conversation; parts of a content are joined by line ends.

    Raises:
        ApiError: names tell speakers of one role apart, and the model is not told names.
    """
    names: dict[str, str | None] = {}
    for index, each in enumerate(written):
        name = each.get("name")
        if names.setdefault(each["role"], name) != name:
            raise wrong_value(
                f"messages[{index}].name",
                f"another {each['role']} than before, and the model is not told names: write it "
                "into the content",
            )
    return tuple(
        Message(
            "system" if each["role"] == "developer" else each["role"],
            each["content"]
            if isinstance(each["content"], str)
            else "\n".join(part["text"] for part in each["content"]),
        )
        for each in written
    )
