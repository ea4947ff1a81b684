"""Bodies: read within limits, and parsed as JSON that means one thing only."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from fst_fastapi.errors import ApiError, ClientGone

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

__all__ = ["read_json"]


async def read_json(scope: Scope, receive: Receive, largest: int, seconds: float) -> dict[str, Any]:
    """Read a request's body, which has to be one JSON object.

    Raises:
        ApiError: it is too large, too slow, of another type, or no JSON object.
        ClientGone: the client left.
    """
    headers = dict(scope["headers"])
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding != b"identity":
        raise _last(415, "send the body without a content-encoding", "unsupported_media_type")
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise _last(415, "send the body as application/json", "unsupported_media_type")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > largest:
        raise _too_large(largest)
    try:
        async with asyncio.timeout(seconds):
            content = await _read(receive, largest)
    except TimeoutError:
        raise _last(408, f"the body took more than {seconds:g} s", "request_timeout") from None
    return _parse(content)


async def _read(receive: Receive, largest: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > largest:
            raise _too_large(largest)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise _no_json(f"it is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg} at character {error.pos}") from None
    except ValueError:
        raise _no_json("an integer has too many digits") from None
    except RecursionError:
        raise _no_json("it is nested too deeply") from None
    if not isinstance(parsed, dict):
        raise _no_json("it is not an object")
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        twice = twice.encode(errors="replace").decode()[:80]
        raise ApiError(400, f"{twice}: this key is there twice", code="invalid_json", param=twice)
    return found


def _no_json(why: str) -> ApiError:
    return ApiError(400, f"the body is not a JSON object: {why}", code="invalid_json")


def _too_large(largest: int) -> ApiError:
    return _last(413, f"the body is larger than {largest} bytes", "request_too_large")


def _last(status: int, message: str, code: str) -> ApiError:
    """Return an error after which the rest of the body is not read: the connection closes."""
    return ApiError(status, message, code=code, headers={"connection": "close"})
