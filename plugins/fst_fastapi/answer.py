"""Answers: from a request's body to the last byte of what the model makes of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import uuid4

from starlette.responses import JSONResponse, Response

from fst_fastapi.body import read_json
from fst_fastapi.errors import ClientGone, as_api_error, wrong_value
from fst_fastapi.events import DONE, PING, event
from fst_fastapi.generating import Generating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from fst_core import Chunk, Engine, Generation, Request
    from fst_fastapi.service import Service
    from fst_fastapi.settings import FastapiSettings

    Table = Mapping[str, Any]
    MakeForm = Callable[[Table, Table, FastapiSettings, Table], "Form"]

__all__ = ["Answer", "Form"]

_STREAM: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Form(Protocol):
    """One request, and how its answer is written: a completion, a chat."""

    prompt_field: str
    """The field that errors of the prompt are about."""
    stream: bool
    """Whether the answer is a stream."""
    include_usage: bool
    """Whether a stream ends with its usage."""

    @property
    def count(self) -> int:
        """How many choices there will be."""

    @property
    def n(self) -> int:
        """How many choices each prompt gets."""

    async def requests(self, engine: Engine) -> list[Request]:
        """Return what the engine is asked, in the order of the choices."""

    async def opening(self, index: int, engine: Engine) -> bytes:
        """Return the events before a choice's first chunk."""

    async def event(self, index: int, chunk: Chunk, engine: Engine) -> bytes:
        """Return the events of a chunk."""

    async def choice(self, index: int, generation: Generation, engine: Engine) -> Any:
        """Return a choice of a whole answer."""

    def body(self, choices: Sequence[Any], usage: Mapping[str, int]) -> Any:
        """Return a whole answer."""

    def usage_event(self, usage: Mapping[str, int]) -> bytes:
        """Return the event that tells a stream's usage."""


class Answer(Response):
    """Answers one request to generate, whole or as a stream."""

    def __init__(self, service: Service, path: str, form: MakeForm) -> None:
        super().__init__()
        self._service = service
        self._path = path
        self._make = form
        self._started = False
        """Whether a part of the answer was sent."""
        self._sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the request, generate, and count how it ended."""
        service, request_id = self._service, scope["state"]["request_id"]
        service.metrics.started()
        outcome, prompt_field = "failed", "prompt"
        begun = asyncio.get_running_loop().time()
        try:
            form = await self._read(scope, receive)
            prompt_field = form.prompt_field
            scope["state"]["choices"] = form.count
            with service.line.enter(form.count) as ticket:
                work = self._stream if form.stream else self._whole
                generating = Generating(service, ticket, form.n)
                await service.while_connected(receive, work(form, generating, scope, receive, send))
            outcome = "ok"
        except ClientGone:
            outcome = "aborted"
            raise
        except Exception as error:
            told = as_api_error(error, request_id, prompt=prompt_field)
            outcome = "rejected" if told.status < 500 or told.status == 503 else "failed"
            if told is not error and told.status >= 500:
                scope["state"]["failure"] = error
            if not self._started:
                raise told from error
            scope["state"]["code"] = told.code
            with suppress(OSError):
                await send(_part(event(told.body())))
                await send(_part(b"", more=False))
        finally:
            service.metrics.ended(outcome)
            service.metrics.whole.observe(asyncio.get_running_loop().time() - begun)

    async def _read(self, scope: Scope, receive: Receive) -> Form:
        service, settings = self._service, self._service.settings
        service.admit()
        body = await read_json(scope, receive, settings.max_body_bytes, settings.stall_seconds)
        values, parameters = service.checkers[self._path].check(body)
        service.check_model(values.get("model"))
        head = {
            "id": uuid4().hex,
            "created": service.now(),
            "model": values.get("model") or service.model_names[0],
            "system_fingerprint": service.fingerprint,
        }
        form = self._make(values, parameters, settings, head)
        if form.count > service.line.capacity:
            raise wrong_value("n", f"the server takes {service.line.capacity} generations in all")
        return form

    async def _whole(
        self, form: Form, generating: Generating, scope: Scope, receive: Receive, send: Send
    ) -> None:
        engine = self._service.engine
        generations = await generating.whole(await form.requests(engine))
        choices = [await form.choice(i, each, engine) for i, each in enumerate(generations)]
        usage = generating.usage()
        scope["state"]["usage"] = usage
        self._started = True
        await JSONResponse(form.body(choices, usage))(scope, receive, send)

    async def _stream(
        self, form: Form, generating: Generating, scope: Scope, _: Receive, send: Send
    ) -> None:
        engine, loop = self._service.engine, asyncio.get_running_loop()
        opened = [False] * form.count

        async def emit(index: int, chunk: Chunk) -> None:
            written = b""
            if not opened[index]:
                opened[index] = True
                written = await form.opening(index, engine)
            written += await form.event(index, chunk, engine)
            if written:
                if not self._started:
                    await self._start(send)
                self._sent_at = loop.time()
                await send(_part(written))

        requests = await form.requests(engine)
        pinging = asyncio.create_task(self._ping(send))
        try:
            await generating.each(requests, emit)
        finally:
            pinging.cancel()
        if not self._started:
            await self._start(send)
        usage = generating.usage()
        scope["state"]["usage"] = usage
        end = form.usage_event(usage) if form.include_usage else b""
        await send(_part(end + DONE))
        await send(_part(b"", more=False))

    async def _start(self, send: Send) -> None:
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": list(_STREAM)})

    async def _ping(self, send: Send) -> None:
        """Send comments while there is nothing else, so that nobody takes the connection for dead."""
        loop = asyncio.get_running_loop()
        pause = self._service.settings.ping_seconds
        self._sent_at = loop.time()
        while True:
            await asyncio.sleep(max(0.001, self._sent_at + pause - loop.time()))
            if loop.time() - self._sent_at >= pause:
                if not self._started:
                    await self._start(send)
                self._sent_at = loop.time()
                await send(_part(PING))


def _part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}
