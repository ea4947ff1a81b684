"""Listening: the socket and the certificate, opened before anything else is begun."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING

from fst_core.errors import UserError

if TYPE_CHECKING:
    from fst_fastapi.keys import Keys
    from fst_fastapi.settings import FastapiSettings

__all__ = ["check_reach", "open_socket", "tls_context", "url_of"]

_SEND_BYTES = 64 << 10
"""What the system holds of an answer that a client does not read; it takes twice of it."""


def check_reach(settings: FastapiSettings, keys: Keys) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises:
        UserError: there is no key, and allow_anonymous is not set.
    """
    if keys or settings.allow_anonymous or _is_loopback(settings.host):
        return
    raise UserError(
        f"host = {settings.host!r}: everybody who reaches this machine could ask. Set key_env or "
        "key_file, or allow_anonymous = true"
    )


def open_socket(settings: FastapiSettings) -> socket.socket:
    """Return a socket bound to the settings' address.

    Raises:
        UserError: the address is in use, or is none of this machine.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(f"host = {host!r}: no such address") from None
    family, kind, protocol, _, address = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        opened.bind(address)
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"port {port} of {host}: {reason}. Choose another: --port, or -s serve.0.port=PORT"
        ) from None
    return opened


def tls_context(settings: FastapiSettings) -> ssl.SSLContext | None:
    """Return the context of the settings' certificate, None without one.

    Raises:
        UserError: its files cannot be read, or do not belong together.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"tls_cert: {settings.tls_cert}: {error}") from None
    return context


def url_of(opened: socket.socket, settings: FastapiSettings) -> str:
    """Return where a browser finds the server."""
    host = settings.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104  # compared, not bound
        host = "localhost"
    host = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{host}:{opened.getsockname()[1]}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
