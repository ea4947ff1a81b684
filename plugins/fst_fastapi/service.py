"""The service: what all routes of one server share."""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fst_fastapi.admission import Line
from fst_fastapi.errors import ApiError, ClientGone
from fst_fastapi.field_table import CHAT, COMPLETIONS, DETOKENIZE, OLD, TOKENIZE
from fst_fastapi.fields import Checker, Fields
from fst_fastapi.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

    from fst_core import Engine
    from fst_fastapi.settings import FastapiSettings

__all__ = ["Service"]

Result = TypeVar("Result")

_RUNNING: Final = 32
"""How many generations run at the same time, where the engine does not say what its batch has."""
_CHANGING: Final = {"alive", "running", "waiting"}
"""What an engine says of its state, not of its model."""


class Service:
    """An engine as one server shows it: its facts, its line, and whether it goes on."""

    def __init__(self, engine: Engine, settings: FastapiSettings) -> None:
        self.engine = engine
        self.settings = settings
        self.facts = {k: v for k, v in engine.describe().items() if k not in _CHANGING}
        self.model_names = settings.model_names or (str(self.facts.get("model", "fst")),)
        self.created = int(time.time())
        self.version = version("full-stack-transformer")
        facts = json.dumps(self.facts, sort_keys=True, default=str)
        self.fingerprint = f"fst-{self.version}-{sha256(facts.encode()).hexdigest()[:8]}"
        running = settings.max_running or int(self.facts.get("max_running", _RUNNING))
        waiting = 4 * running if settings.max_waiting is None else settings.max_waiting
        self.line = Line(running, waiting, settings.waiting_seconds)
        self.metrics = Metrics(self.model_names[0], self.line)
        sampling = self.facts.get("sampling") or {}
        self.fields = {
            path: Fields(path, sampling) for path in (COMPLETIONS, CHAT, TOKENIZE, DETOKENIZE, OLD)
        }
        self.checkers = {path: Checker(fields) for path, fields in self.fields.items()}
        self.draining = False
        self.alive = True
        self._interrupted: asyncio.Future[ApiError] = asyncio.get_running_loop().create_future()

    def model(self) -> dict[str, Any]:
        """Return what `/v1/models` says, with the facts that the page and other clients read."""
        return {
            "id": self.model_names[0],
            "object": "model",
            "created": self.created,
            "owned_by": "fst",
            "root": self.model_names[0],
            "max_model_len": self.facts.get("context_length"),
            "chat": self.facts.get("chat"),
            "sampling": self.facts.get("sampling") or {},
        }

    def now(self) -> int:
        """Return the time as answers tell it."""
        return int(time.time())

    def check_model(self, name: str | None) -> None:
        """Refuse a name that the model has not; without one, it is meant.

        Raises:
            ApiError: there is no such model.
        """
        if name is not None and name not in self.model_names:
            known = ", ".join(self.model_names)
            raise ApiError(
                404,
                f"model: there is no model {name!r}. There is: {known}",
                code="model_not_found",
                param="model",
            )

    def admit(self) -> None:
        """Refuse a request before anything is read of it, if it has no chance.

        Raises:
            ApiError: the server is stopping, its engine is dead, or its line is full.
        """
        if self.draining:
            raise ApiError(
                503,
                "the server is stopping",
                code="server_shutting_down",
                headers={"retry-after": "5", "connection": "close"},
            )
        if not self.alive:
            raise _dead()
        self.line.check()

    def interrupt(self, error: ApiError) -> None:
        """End whatever runs, with this error."""
        if not self._interrupted.done():
            self._interrupted.set_result(error)

    async def while_connected(self, receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
        """Do a request's work for as long as its client, and the time it may take, are there.

        Raises:
            ClientGone: the client closed its connection.
            ApiError: the work takes too long, the server is stopping, or the engine has died.
        """
        task = asyncio.create_task(work)
        gone = asyncio.create_task(_gone(receive))
        try:
            waited: set[asyncio.Future[Any]] = {task, gone, self._interrupted}
            await asyncio.wait(
                waited,
                timeout=self.settings.request_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            if gone.done():
                raise ClientGone
            if self._interrupted.done():
                raise self._interrupted.result()
            raise ApiError(
                504,
                f"the request took more than {self.settings.request_seconds:g} s",
                code="request_timeout",
                headers={"x-should-retry": "false"},
            )
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _dead() -> ApiError:
    return ApiError(503, "the engine has died", code="engine_dead", headers={"retry-after": "10"})
