"""Errors in the shape that clients of OpenAI's interface read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from fst_core.errors import EngineBusy, PromptTooLong, UnsupportedParameter, UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ApiError", "ClientGone", "as_api_error", "error_response", "is_clients", "wrong_value"]

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_NAMES: Final = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "stop_ids": "stop_token_ids",
    "prompt_logprobs": "logprobs",
}
"""What fields of an engine's request are called in a client's."""


class ApiError(Exception):
    """An answer that is an error, with its status, code and the field that it is about."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error as JSON holds it."""
        usual = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, usual),
                "param": self.param,
                "code": self.code,
            }
        }


class ClientGone(Exception):
    """The client closed its connection; nobody is there to be answered."""


def error_response(error: ApiError) -> JSONResponse:
    """Return the answer that an error is."""
    return JSONResponse(error.body(), error.status, headers=error.headers)


def wrong_value(field: str, why: str) -> ApiError:
    """Return the error of a field's value."""
    return ApiError(400, f"{field}: {why}", code="invalid_value", param=field)


def is_clients(error: Exception) -> bool:
    """Say whether an engine's error is about the request: other kinds are about what the operator installed."""
    return isinstance(error, PromptTooLong | UnsupportedParameter) or type(error) is UserError


def as_api_error(error: Exception, request_id: str, *, prompt: str = "prompt") -> ApiError:
    """Return what a client is told of an error.

    Args:
        error: of an engine, or of anything else.
        request_id: which the message of a failure names, for the operator to find it by.
        prompt: the field that holds the prompt.
    """
    if isinstance(error, ApiError):
        return error
    message = one_line(error)
    if isinstance(error, EngineBusy):
        wait = 5 if error.retry_after is None else min(60, max(1, math.ceil(error.retry_after)))
        headers = {"retry-after": str(wait)}
        return ApiError(503, message, code="server_overloaded", headers=headers)
    if isinstance(error, PromptTooLong):
        return ApiError(400, message, code="context_length_exceeded", param=prompt)
    if is_clients(error):
        unsupported = isinstance(error, UnsupportedParameter)
        name = (
            error.parameter if isinstance(error, UnsupportedParameter) else _leading_name(message)
        )
        param = prompt if name == "prompt" else _NAMES.get(name or "", name)
        if name in _NAMES:
            message = message.replace(name, _NAMES[name], 1)
        code = "unsupported_parameter" if unsupported else "invalid_value"
        return ApiError(400, message, code=code, param=param)
    return ApiError(500, f"the server failed; request id {request_id}", code="internal_error")


def _leading_name(message: str) -> str | None:
    """Return the field that a message begins with, as `temperature = 3: ...` or `prompt: ...`."""
    found = re.match(r"([A-Za-z_]\w*)(?:[.\[][^:=]{0,80})?(?: = |: )", message)
    return found[1] if found else None
