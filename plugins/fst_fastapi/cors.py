"""Cross-origin requests: which pages of other sites may read answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fst_fastapi.service import Service

__all__ = ["Cors"]


class Cors:
    """Lets browsers show answers, errors too, to pages of the origins that the settings name."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._origins = {origin.encode() for origin in service.settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a browser's question before the request, or pass the request on."""
        headers: dict[bytes, bytes] = dict(scope.get("headers", ()))
        origin = headers.get(b"origin")
        if origin not in self._origins or origin is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight(origin, send)
        else:
            await self._app(scope, receive, _with_origin(origin, send))


def _with_origin(origin: bytes, send: Send) -> Send:
    async def allowed(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", b"x-request-id, retry-after"),
                (b"vary", b"Origin"),
            ]
        await send(message)

    return allowed


async def _preflight(origin: bytes, send: Send) -> None:
    headers = [
        (b"access-control-allow-origin", origin),
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"Origin"),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
