"""The gate: each request gets an id, an answer whatever happens, and a line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from fst_core.errors import one_line
from fst_fastapi.errors import ApiError, ClientGone, as_api_error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fst_fastapi.errors import ApiError
    from fst_fastapi.service import Service

__all__ = ["Gate"]

LOG: Final = logging.getLogger("fst_fastapi")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LINGER_BYTES: Final = 64 << 10
_LINGER_SECONDS: Final = 1.0
"""How much, and for how long, is read of a request that is refused."""
_SECURITY: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Gate:
    """Gives each request an id, turns every error into an answer, and writes a line of the log."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request_id = _request_id(scope)
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id
        since, status = time.monotonic(), 0
        state["body_read"] = False

        async def noted() -> Message:
            message = await receive()
            if not message.get("more_body"):
                state["body_read"] = True
            return message

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *_SECURITY,
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self._app(scope, noted, tagged)
        except ClientGone:
            status = 499
        except Exception as error:  # noqa: BLE001  # every error is an answer, and a line in the log
            told = as_api_error(error, request_id)
            if told is not error:
                state.setdefault("failure", error)
            state.setdefault("code", told.code)
            if status == 0:
                await _refuse(told, scope, noted, tagged)
            else:
                status = 599  # an answer that broke off: the connection closes
        finally:
            self._service.metrics.responded(status)
            self._log(scope, status, time.monotonic() - since)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        failure = state.get("failure")
        if failure is None and not self._service.settings.log_requests:
            return
        said = {
            "id": state["request_id"],
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
            "client": (scope.get("client") or ("",))[0],
            "key": state.get("holder"),
            "code": state.get("code"),
            **state.get("usage", {}),
        }
        if failure is not None:
            said["failure"] = f"{type(failure).__name__}: {one_line(failure)}"
        told = {name: value for name, value in said.items() if value is not None}
        level = logging.ERROR if failure is not None else logging.INFO
        LOG.log(level, "request", extra={"said": told})


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error, and read what of the request is still on its way, within bounds.

    A connection that closes with something unread is reset, and the client never sees the answer.
    """
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    long = b"transfer-encoding" in headers or len(length) > 5 or int(length) > _LINGER_BYTES
    long = long and not scope["state"]["body_read"]
    content = json.dumps(error.body(), ensure_ascii=False).encode()
    written = [(name.encode(), value.encode()) for name, value in error.headers.items()]
    if long and "connection" not in error.headers:
        written.append((b"connection", b"close"))
    said = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send(
        {"type": "http.response.start", "status": error.status, "headers": [*said, *written]}
    )
    await send({"type": "http.response.body", "body": content, "more_body": True})
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while size <= _LINGER_BYTES and not scope["state"]["body_read"]:
                size += len((await receive()).get("body", b""))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _request_id(scope: Scope) -> str:
    """Return the client's id for its request, if it is harmless; else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    if _REQUEST_ID.fullmatch(given):
        return str(given.decode())
    return secrets.token_hex(8)
