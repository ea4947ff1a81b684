"""The HTTP protocol of a connection: uvicorn's, with bounds on headers, on silence and on numbers."""

from __future__ import annotations

import asyncio  # noqa: TC003  # a base class in the signature of a function that runs
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from fst_fastapi.settings import FastapiSettings

__all__ = ["bounded_protocol"]


def bounded_protocol(settings: FastapiSettings) -> type[asyncio.Protocol]:
    """Return the protocol's class for a server with these settings."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"settings": settings})


class _Refused(Exception):
    """The header is refused; the parser passes no more of it on."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose header is too large or too slow, and those that do not read."""

    settings: FastapiSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._header_bytes = 0
        """Of the header that is coming, counted as it comes."""
        self._line_bytes = 0
        """Of its lines that are complete."""
        self._refusal: _Refused | None = None
        self._incomplete = True
        """Whether a header is not complete."""
        self._receiving = False
        """Whether a request has begun whose end has not come."""
        self._slow: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; one connection too many is closed at once."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self.settings.max_connections:
            self._refuse(_Refused(503, "server_overloaded", "too many connections"))
            return
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        for timer in (self._slow, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes; those of a header are counted before they are parsed."""
        if self.transport.is_closing():
            return
        if self._incomplete:
            self._header_bytes += len(data)
            if self._slow is None:
                self._expect_header()
        super().data_received(data)
        if self._incomplete and self._header_bytes > self.settings.max_header_bytes:
            self._refuse(_too_large("header"))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or what a callback of the parser refused."""
        self._refuse(self._refusal or _Refused(400, "invalid_http", msg))

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._receiving = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's path."""
        super().on_url(url)
        if len(self.url) > self.settings.max_header_bytes:
            self._stop(_Refused(414, "uri_too_long", "the path is too long"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a line of the header."""
        super().on_header(name, value)
        if len(self.headers) > self.settings.max_headers:
            self._stop(_too_large("header has too many lines"))
        self._line_bytes += len(name) + len(value) + 4
        if self._line_bytes > self.settings.max_header_bytes:
            self._stop(_too_large("header"))

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._incomplete = False
        self._header_bytes = self._line_bytes = 0
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._receiving = False
        self._incomplete = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Keep the connection for a further request, unless this one is still being sent."""
        if self.cycle.more_body and not self.pipeline:
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for ever."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.settings.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, as the client has read."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _expect_header(self) -> None:
        self._slow = self.loop.call_later(self.settings.stall_seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._receiving:
            self._refuse(_Refused(408, "request_timeout", "the header took too long"))
        else:
            self.transport.close()

    def _stop(self, refusal: _Refused) -> None:
        """Make the parser stop: it reports a callback's exception as an error of its own."""
        self._refusal = refusal
        raise refusal

    def _refuse(self, refused: _Refused) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # an answer is on its way: nothing may be written into it
            return
        error = {
            "message": str(refused),
            "type": "invalid_request_error" if refused.status < 500 else "server_error",
            "param": None,
            "code": refused.code,
        }
        body = json.dumps({"error": error}).encode()
        phrase = HTTPStatus(refused.status).phrase
        head = (
            f"HTTP/1.1 {refused.status} {phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _too_large(what: str) -> _Refused:
    return _Refused(431, "header_too_large", f"the {what} is too large")
