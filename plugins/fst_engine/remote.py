"""The engine `remote`: any server that speaks OpenAI's HTTP interface."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from fst_core import Chunk, Engine
from fst_core.errors import (
    EngineBusy,
    FstError,
    PromptTooLong,
    UnsupportedParameter,
    UserError,
    one_line,
)
from fst_engine.parameters import Parameters
from fst_engine.prompts import is_conversation
from fst_engine.remote_logprobs import logprobs_of, scoring

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from fst_core import Message, Request, Tokenizer
    from fst_core.generation import FinishReason
    from fst_core.interfaces.engine import Samplers
    from fst_engine.settings import RemoteSettings

__all__ = ["RemoteEngine"]

_ALWAYS: Final = ("temperature", "top_p")
"""Parameters that are always sent: what a server takes without them is its own choice."""
_STANDARD: Final = {
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias",
}  # fmt: skip
"""Parameters of samplers that every server knows."""


class RemoteEngine(Engine):
    """Asks `/completions` for texts and ids, `/chat/completions` for conversations.

    Parameters are the fields of the pipeline's samplers, sent under their names; the server draws.
    Log probabilities are taken from servers that say of which ids they are (`extensions`), as vLLM and
    FST do; others name tokens by their texts, which may be those of several ids.
    """

    def __init__(self, settings: RemoteSettings) -> None:
        self.settings = settings
        self._parameters = Parameters(())
        self._model: dict[str, Any] | None = None
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """That of the client: a connection belongs to one."""
        self._alive = True
        self._closed = False
        self._tls = ssl.create_default_context()

    def for_module(
        self,
        module: torch.nn.Module,  # noqa: ARG002  # the interface's
        tokenizer: Tokenizer,  # noqa: ARG002  # the same
        samplers: Samplers,  # noqa: ARG002  # the same
        context_length: int,  # noqa: ARG002  # the same
        *,
        supports_cache: bool = True,  # noqa: ARG002  # the same
    ) -> Self:
        """Refuse: the module is here, and the engine is not.

        Raises:
            UserError: always.
        """
        raise UserError(
            "the engine 'remote' has no module of its own: train with engine.use = 'local'"
        )

    def for_artefact(self, directory: Path, samplers: Samplers) -> Self:  # noqa: ARG002  # the model is elsewhere
        """Return an engine that asks the server, once it has said which models it has.

        Raises:
            UserError: the server has no such model, or key_env names no variable.
            FstError: the server cannot be reached.
        """
        engine = type(self)(self.settings)
        engine._parameters = Parameters(samplers)  # noqa: SLF001  # of the same class
        engine._model = engine._find_model()  # noqa: SLF001  # the same
        return engine

    def describe(self) -> Mapping[str, Any]:
        """Return what is known of the server's model."""
        model = self._known()
        described = {
            "name": "remote",
            "url": self.settings.url,
            "model": model["id"],
            "alive": self._alive and not self._closed,
            "context_length": model.get("max_model_len"),
            "chat": model.get("chat"),
            "sampling": self._parameters.schema(),
        }
        return {name: value for name, value in described.items() if value is not None}

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield a request's chunks; closing the generator closes the connection, which ends the request.

        Raises:
            UnsupportedParameter: the server's interface has no word for a field of the request.
            UserError: the server refuses the request.
            EngineBusy: the server has too many.
            FstError: the server cannot be reached, or fails.
        """
        chat = is_conversation(request.prompt)
        body = self._body(request)
        path = "chat/completions" if chat else "completions"
        last: Chunk | None = None
        async with self._connected() as client, client.stream("POST", path, json=body) as answer:
            if answer.status_code != httpx.codes.OK:
                await answer.aread()
                raise _refusal(answer)
            async for event in _events(answer):
                if "error" in event:
                    raise FstError(f"the server failed: {_message(event)}")
                chunk = _chunk(event, chat=chat, top=request.logprobs)
                if last is not None:  # what comes after the last text tells of its usage
                    last = replace(last, prompt_tokens=chunk.prompt_tokens)
                elif chunk.finish_reason:
                    last = chunk
                elif chunk.text or chunk.ids:
                    yield chunk
        if last is None:
            raise FstError("the server ended the text without a reason")
        yield last

    async def encode(self, prompt: str | tuple[int, ...] | tuple[Message, ...]) -> tuple[int, ...]:
        """Return the ids that the server makes of a prompt.

        Raises:
            UnsupportedParameter: the server has no `/tokenize`.
        """
        if not isinstance(prompt, str) and not is_conversation(prompt):
            return tuple(i for i in prompt if isinstance(i, int))
        field = {"messages": _messages(prompt)} if is_conversation(prompt) else {"prompt": prompt}
        found = await self._ask("tokenize", {"model": self._known()["id"], **field}, "prompt")
        return tuple(map(int, found.get("tokens", ())))

    async def decode(self, ids: Sequence[int]) -> str:
        """Return the text that the server makes of ids.

        Raises:
            UnsupportedParameter: the server has no `/detokenize`.
        """
        body = {"model": self._known()["id"], "tokens": list(ids)}
        return str((await self._ask("detokenize", body, "ids")).get("prompt", ""))

    async def close(self) -> None:
        """Close the connections; further requests are refused."""
        self._closed = True
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    def _known(self) -> dict[str, Any]:
        if self._model is None:
            raise FstError("the engine has no server yet: use what for_artefact returns")
        return self._model

    def _body(self, request: Request) -> dict[str, Any]:
        """Return a request as the server reads it."""
        self._refuse(request)
        body: dict[str, Any] = {
            "model": self._known()["id"],
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._sampling(request),
        }
        if is_conversation(request.prompt):
            body["messages"] = _messages(request.prompt)
        else:
            body["prompt"] = request.prompt
        if request.logprobs is not None:
            body |= scoring(request.logprobs, chat="messages" in body)
        if request.max_new_tokens is not None:
            body["max_tokens"] = request.max_new_tokens
        if request.stop:
            body["stop"] = list(request.stop)
        more = {
            "stop_token_ids": list(request.stop_ids), "min_tokens": request.min_new_tokens,
        }  # fmt: skip
        for (name, value), field in zip(more.items(), ("stop_ids", "min_new_tokens"), strict=True):
            if value and not self.settings.extensions:
                raise UnsupportedParameter(field)
            if value:
                body[name] = value
        if self.settings.extensions:
            body["return_token_ids"] = True
        return body

    def _refuse(self, request: Request) -> None:
        """Refuse what servers do not tell or take whatever their model is."""
        for name in ("meta", "prompt_logprobs"):
            if getattr(request, name) is not None:
                raise UnsupportedParameter(name)
        if request.logprobs is not None and not self.settings.extensions:
            raise UnsupportedParameter("logprobs", "engine.extensions = false: ids are not told")

    def _sampling(self, request: Request) -> dict[str, Any]:
        """Return the samplers' parameters that are not what they are without a word."""
        sent: dict[str, Any] = {}
        for settings in self._parameters.merged(request.parameters):
            if settings is None:
                continue
            fields = type(settings).model_fields
            usual = {n: f.get_default(call_default_factory=True) for n, f in fields.items()}
            for name, value in settings.model_dump(mode="json").items():
                if getattr(settings, name) == usual[name] and name not in _ALWAYS:
                    continue
                if name not in _STANDARD and not self.settings.extensions:
                    raise UnsupportedParameter(name)
                sent[name] = value
        return sent

    def _find_model(self) -> dict[str, Any]:
        """Return what the server says of the model: that of the settings, or its first."""
        try:
            with httpx.Client(**self._options()) as client:
                answer = client.get("models")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if answer.status_code != httpx.codes.OK:
            raise _refusal(answer)
        try:
            models = {str(model["id"]): dict(model) for model in answer.json()["data"]}
        except (ValueError, KeyError, TypeError):
            raise FstError(f"{self.settings.url}: not a server of OpenAI's interface") from None
        wanted = self.settings.model or next(iter(models), None)
        if wanted not in models:
            known = ", ".join(models) or "none"
            raise UserError(f"{self.settings.url}: no model {wanted!r}. It has: {known}")
        return models[wanted]

    def _options(self) -> dict[str, Any]:
        headers = {}
        if self.settings.key_env is not None:
            key = os.environ.get(self.settings.key_env)
            if not key:
                raise UserError(f"key_env: the variable {self.settings.key_env} is not set")
            headers["Authorization"] = f"Bearer {key}"
        # A slow model's first token may take long, its connection may not.
        timeout = httpx.Timeout(self.settings.timeout_seconds, connect=10.0)
        url = self.settings.url.rstrip("/") + "/"
        # Many servers close a connection that is idle for 5 s: a request sent just then would be lost.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
        return {
            "base_url": url, "headers": headers, "timeout": timeout, "verify": self._tls,
            "limits": limits,
        }  # fmt: skip

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[httpx.AsyncClient]:
        """Give the client of this event loop, and say in our words what goes wrong."""
        if self._closed:
            raise FstError("the engine is closed")
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = httpx.AsyncClient(**self._options()), loop
        try:
            yield self._client
        except (httpx.HTTPError, RuntimeError) as error:
            if self._closed:
                raise FstError("the engine is closed") from None
            if isinstance(error, RuntimeError):
                raise
            self._alive = not isinstance(error, httpx.ConnectError)
            raise self._unreachable(error) from None
        else:
            self._alive = True

    def _unreachable(self, error: httpx.HTTPError) -> FstError:
        """Return what to say of a server that does not answer."""
        remedy = ""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            remedy = ". Start the server, or set engine.url to where it listens"
        return FstError(f"{self.settings.url}: {type(error).__name__}: {one_line(error)}{remedy}")

    async def _ask(self, path: str, body: dict[str, Any], field: str) -> dict[str, Any]:
        """Ask what servers have beside `/v1`, such as vLLM's and FST's `/tokenize`."""
        root = self.settings.url.rstrip("/").removesuffix("/v1")
        async with self._connected() as client:
            answer = await client.post(f"{root}/{path}", json=body)
        if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
            raise UnsupportedParameter(field, f"the server has no /{path}")
        if answer.status_code != httpx.codes.OK:
            raise _refusal(answer)
        found: dict[str, Any] = answer.json()
        return found


def _messages(prompt: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt]


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of a stream of server-sent events."""
    async for line in answer.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise FstError("the server sent something that is no event")
        yield event


def _chunk(event: Mapping[str, Any], *, chat: bool, top: int | None) -> Chunk:
    """Return what an event tells.

    Raises:
        UnsupportedParameter: it has no log probabilities by ids, and is to have (`top` is no None).
    """
    usage = event.get("usage") or {}
    choices = event.get("choices") or [{}]
    choice = choices[0]
    text = (choice.get("delta") or {}).get("content") if chat else choice.get("text")
    reason: FinishReason | None = None
    if choice.get("finish_reason"):
        reason = "length" if choice["finish_reason"] == "length" else "stop"
    ids = tuple(choice.get("token_ids") or ())
    logprobs = None if top is None else logprobs_of(choice, ids, len(text or ""), top)
    return Chunk(text or "", ids, logprobs, reason, usage.get("prompt_tokens"))


def _refusal(answer: httpx.Response) -> FstError:
    """Return the error that an answer's status means."""
    status = answer.status_code
    try:
        said = json.loads(answer.content)
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    message = _message(said) or f"status {status}"
    if status in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
        wait = answer.headers.get("retry-after", "")  # a date is not worth its parsing
        return EngineBusy(f"the server is busy: {message}", int(wait) if wait.isdecimal() else None)
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return FstError(f"the server refuses the key of key_env: {message}")
    error = said.get("error")
    if isinstance(error, dict) and error.get("code") == "context_length_exceeded":
        return PromptTooLong(message)
    if httpx.codes.is_client_error(status):
        return UserError(message)
    return FstError(f"the server failed: {message}")


def _message(said: Mapping[str, Any]) -> str:
    error = said.get("error", said)
    message = error.get("message", "") if isinstance(error, dict) else error
    return " ".join(str(message).split())[:300]
