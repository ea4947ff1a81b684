"""The frontend `fastapi`: a server's life, from its socket to its last answer."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from fst_core import Frontend
from fst_core.errors import FstError
from fst_fastapi.app import build_app
from fst_fastapi.errors import ApiError
from fst_fastapi.keys import read_keys
from fst_fastapi.listening import check_reach, open_socket, tls_context, url_of
from fst_fastapi.log import logging_to_stderr
from fst_fastapi.protocol import bounded_protocol
from fst_fastapi.service import Service

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterator

    from fst_core import Engine
    from fst_fastapi.settings import FastapiSettings

__all__ = ["FastapiFrontend"]

_BEAT_SECONDS: Final = 0.5
"""How often the engine is asked whether it lives."""
_IDLE_SECONDS: Final = 75
"""How long a connection is kept without a request."""
_LEAVE_SECONDS: Final = 2.0
"""How long answers that were cut may take to tell so."""


class FastapiFrontend(Frontend):
    """Serves an engine over HTTP.

    Raises:
        UserError: the address, a key or the certificate is wrong: told before a model is loaded.
    """

    def __init__(self, settings: FastapiSettings) -> None:
        self.settings = settings
        self.url: str | None = None
        """Where it serves, once it does."""
        self._keys = read_keys(settings)
        self._tls = tls_context(settings)
        check_reach(settings, self._keys)
        open_socket(settings).close()

    async def serve(self, engine: Engine, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set: then refuse what is new, and finish what runs in the drain time.

        Raises:
            UserError: the address is taken.
            FstError: the engine died.
        """
        opened = open_socket(self.settings)
        try:
            service = Service(engine, self.settings)
            server = _Server(_config(build_app(service, self._keys), self.settings, self._tls))
            with logging_to_stderr():
                await self._serve(server, service, opened, stopping)
        finally:
            opened.close()
            self.url = None

    async def _serve(
        self, server: _Server, service: Service, opened: socket.socket, stopping: asyncio.Event
    ) -> None:
        serving = asyncio.create_task(server.serve([opened]))
        watching = asyncio.create_task(_watch(service))
        told = asyncio.create_task(stopping.wait())
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            self.url = url_of(opened, self.settings)
            print(f"serve: {self.url}", file=sys.stderr, flush=True)  # noqa: T201  # for who started it
            await asyncio.wait({serving, watching, told}, return_when=asyncio.FIRST_COMPLETED)
            service.draining = True
            if not watching.done() and not serving.done():
                await _drain(service, watching)
            server.should_exit = True
            await serving
            if watching.done():
                watching.result()
        finally:
            for task in (told, watching):
                task.cancel()
            await _leave(server, serving)
            await asyncio.gather(told, watching, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to `fst serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _config(
    app: object, settings: FastapiSettings, context: ssl.SSLContext | None
) -> uvicorn.Config:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]  # an ASGI application
        http=bounded_protocol(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=int(_LEAVE_SECONDS),
    )
    if context is not None:
        config.ssl_context_factory = lambda *_: context
    return config


async def _watch(service: Service) -> None:
    """Watch the engine's heartbeat.

    Raises:
        FstError: the engine has been dead for long enough.
    """
    dead_since: float | None = None
    while True:
        alive = service.engine.describe().get("alive", True)
        service.alive = bool(alive)
        now = time.monotonic()
        dead_since = None if alive else dead_since or now
        if dead_since is not None and now - dead_since >= service.settings.dead_seconds:
            service.interrupt(ApiError(500, "the engine has died", code="engine_dead"))
            raise FstError("the engine has died: what ran was ended with an error")
        await asyncio.sleep(_BEAT_SECONDS)


async def _drain(service: Service, watching: asyncio.Task[None]) -> None:
    """Wait until all requests are answered; end with an error those that are not in time."""
    deadline = time.monotonic() + service.settings.drain_seconds
    while service.line.inside and time.monotonic() < deadline and not watching.done():
        await asyncio.sleep(0.02)
    service.interrupt(
        ApiError(
            503, "the server is stopping", code="server_shutting_down", headers={"retry-after": "5"}
        )
    )


async def _leave(server: _Server, serving: asyncio.Task[None]) -> None:
    """End at once whatever has not ended: tasks, connections, and the listening socket."""
    serving.cancel()
    await asyncio.wait([serving])
    for listener in getattr(server, "servers", ()):
        listener.close()
    tasks = list(server.server_state.tasks)
    for task in tasks:
        task.cancel()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
