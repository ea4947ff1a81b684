"""The guard: who may ask, denying by default."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from fst_fastapi.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from fst_fastapi.keys import Holder, Keys
    from fst_fastapi.service import Service

__all__ = ["Guard"]

_SAFE: Final = {"GET", "HEAD"}
_PUBLIC: Final = {"/", "/page.js", "/page.css", "/page.svg", "/healthz", "/readyz"}
"""All that is answered without a key, and to GET and HEAD alone."""


class Guard:
    """Lets pass who may: by the key, or where there is none by the host's name and the page's origin."""

    def __init__(self, app: ASGIApp, service: Service, keys: Keys) -> None:
        self._app = app
        self._service = service
        self._keys = keys
        self._origins = {origin.encode() for origin in service.settings.allowed_origins}
        self._hosts = {name.lower() for name in (*service.settings.allowed_hosts, "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin")
        if not self._keys:
            self._check_host(headers.get(b"host", b""))
            self._check_origin(scope, origin, headers)
            await self._app(scope, receive, send)
            return
        if scope["method"] in _SAFE and scope["path"] in _PUBLIC:
            await self._app(scope, receive, send)
            return
        holder = self._keys.holder(headers.get(b"authorization"))
        assert holder is not None
        scope["state"]["holder"] = holder.name
        await self._counted(holder, scope, receive, send)

    async def _counted(self, holder: Holder, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in _SAFE:
            await self._app(scope, receive, send)
            return
        settings = self._service.settings
        holder.begin(settings.requests_per_minute, settings.concurrent_requests)
        try:
            await self._app(scope, receive, send)
        finally:
            holder.running -= 1

    def _check_host(self, host: bytes) -> None:
        """Refuse a name that a stranger's page may have given this machine, where no key is needed."""
        try:
            name = (urlsplit(f"//{host.decode('ascii')}").hostname or "").lower()
        except ValueError:
            name = ""
        if name not in self._hosts and not _is_address(name):
            raise ApiError(
                421,
                "this server is not known by that name: use its address, or allowed_hosts",
                code="unknown_host",
            )

    def _check_origin(
        self, scope: Scope, origin: bytes | None, headers: dict[bytes, bytes]
    ) -> None:
        """Refuse what another site's page sends, where no key is needed to send it."""
        if origin is None or scope["method"] in _SAFE or origin in self._origins:
            return
        if origin.rpartition(b"//")[2] != headers.get(b"host", b""):
            raise ApiError(
                403, "pages of that origin may not call this server", code="origin_not_allowed"
            )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
