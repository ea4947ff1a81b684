"""Server-sent events, whose unchanging parts are written once a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DONE", "PING", "encode", "event", "text_event"]

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"

# Texts stay as they are, in UTF-8: escapes would triple those that are not English.
encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def event(value: Mapping[str, Any]) -> bytes:
    """Return an object as an event."""
    return f"data: {encode(value)}\n\n".encode()


def text_event(value: Mapping[str, Any]) -> tuple[str, str]:
    """Return what stands before and behind a text in the event of an object with the text "TEXT"."""
    before, _, behind = f"data: {encode(value)}\n\n".rpartition('"TEXT"')
    return before, behind
