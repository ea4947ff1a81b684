"""The files of the page, from the package itself."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from starlette.responses import Response

__all__ = ["PAGE", "page_response"]

PAGE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
"""Paths with their files and types."""

_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "cache-control": "no-cache",
}


def page_response(path: str) -> Response:
    """Return one of the page's files; the policy lets it load nothing from elsewhere."""
    name, kind = PAGE[path]
    content = (files("fst_fastapi") / "page" / name).read_bytes()
    return Response(content, media_type=kind, headers=_HEADERS)
