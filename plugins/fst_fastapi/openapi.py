"""The OpenAPI document, from the table of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fst_fastapi.field_table import CHAT, COMPLETIONS, DETOKENIZE, OLD, TOKENIZE

if TYPE_CHECKING:
    from fst_fastapi.service import Service

__all__ = ["MODEL_NAME", "answers", "body"]

_NULLABLE_TEXT: Final = {"type": ["string", "null"]}
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _NULLABLE_TEXT,
                "code": _NULLABLE_TEXT,
            },
        }
    },
}
_COUNT: Final = {"type": "integer", "minimum": 0}
_USAGE: Final = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
        "total_tokens": _COUNT,
    },
}
_REASON: Final = {"type": "string", "enum": ["stop", "length"]}
_MODEL: Final = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "max_model_len", "chat", "sampling"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "max_model_len": {"type": ["integer", "null"]},
        "chat": {"enum": ["trained", "default", None]},
        "sampling": {"type": "object"},
    },
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _whole(kind: str, choice: dict[str, Any]) -> dict[str, Any]:
    return _object(
        id={"type": "string"},
        object={"const": kind},
        created={"type": "integer"},
        model={"type": "string"},
        choices={"type": "array", "items": choice},
        usage=_USAGE,
    )


_CHOICE: Final = _object(
    index=_COUNT,
    text={"type": "string"},
    logprobs={"type": ["object", "null"]},
    finish_reason=_REASON,
)
_TURN: Final = _object(
    index=_COUNT,
    message=_object(
        role={"const": "assistant"}, content={"type": "string"}, refusal={"type": "null"}
    ),
    logprobs={"type": ["object", "null"]},
    finish_reason=_REASON,
)
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    COMPLETIONS: _whole("text_completion", _CHOICE),
    CHAT: _whole("chat.completion", _TURN),
    TOKENIZE: _object(
        count=_COUNT,
        max_model_len={"type": ["integer", "null"]},
        tokens={"type": "array", "items": _COUNT},
    ),
    DETOKENIZE: _object(prompt={"type": "string"}),
    OLD: _object(texts={"type": "array", "items": {"type": "string"}}),
    "/v1/models": _object(object={"const": "list"}, data={"type": "array", "items": _MODEL}),
    "/v1/models/{name}": _MODEL,
}
_STATUSES: Final = {
    400: "A field is wrong, unknown or not supported; `param` names it.",
    401: "The key is missing or wrong.",
    403: "Pages of that origin may not call this server.",
    404: "There is no such model.",
    408: "The request took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not plain JSON.",
    421: "The server is not known by that name.",
    429: "The key has too many requests.",
    500: "The model, or a part of the server, failed.",
    503: "The server is full, stopping, or its engine has died.",
    504: "The request took longer than the server allows.",
}
_READING: Final = (401, 421)
MODEL_NAME: Final = {
    "parameters": [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}},
    ]
}
"""What the document says of the path of one model; a name may have slashes."""


def body(service: Service, path: str) -> dict[str, Any]:
    """Return what the document says of the body of a path's request."""
    content = {"application/json": {"schema": service.fields[path].schema()}}
    return {"requestBody": {"required": True, "content": content}}


def answers(path: str) -> dict[int | str, dict[str, Any]]:
    """Return what the document says of a path's answers."""
    said: dict[int | str, dict[str, Any]] = {200: {"description": "The answer."}}
    if path in _ANSWERS:
        content: dict[str, Any] = {"application/json": {"schema": _ANSWERS[path]}}
        if path in {COMPLETIONS, CHAT}:
            content["text/event-stream"] = {}
        said[200]["content"] = content
    for status in _statuses(path):
        said[status] = {
            "description": _STATUSES[status],
            "content": {"application/json": {"schema": _ERROR}},
        }
    return said


def _statuses(path: str) -> tuple[int, ...]:
    """Return the statuses of errors that a path may answer with."""
    if path == "/v1/models/{name}":
        return (*_READING, 404)
    if path in {"/healthz", "/readyz", "/health_check/"}:
        return (*_READING, 503)
    return tuple(_STATUSES) if path in _ANSWERS and path != "/v1/models" else _READING
