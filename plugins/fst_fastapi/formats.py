"""`response_format`: OpenAI's word for texts that are JSON, in those of a sampler with `json_schema`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fst_fastapi.errors import wrong_value
from fst_fastapi.field_table import CHAT, COMPLETIONS, Field

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PARAMETER", "RESPONSE_FORMAT", "constrained"]

PARAMETER: Final = "json_schema"
"""The parameter of a sampler that makes a text fit a JSON schema."""
_TEXT: Final = {"type": ["string", "null"]}
RESPONSE_FORMAT: Final = Field(
    "response_format",
    (COMPLETIONS, CHAT),
    {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
            "json_schema": {
                "type": ["object", "null"],
                "properties": {
                    "name": _TEXT,
                    "description": _TEXT,
                    "schema": {"type": "object"},
                    "strict": {"type": ["boolean", "null"]},
                },
                "required": ["schema"],
                "additionalProperties": False,
            },
        },
        "required": ["type"],
        "additionalProperties": False,
    },
    "The answer is a text, any JSON object, or JSON that fits json_schema.schema, strict or not.",
)
"""The field, where a sampler has that parameter."""


def constrained(
    parameters: Mapping[str, Any], wanted: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """Return a request's parameters with what its `response_format` asks for.

    Raises:
        ApiError: there is no schema, or the parameters have one already.
    """
    kind = "text" if wanted is None else wanted["type"]
    if wanted is None or kind == "text":
        return parameters
    if PARAMETER in parameters:
        raise wrong_value("response_format", f"not together with {PARAMETER}")
    if kind == "json_object":
        return {**parameters, PARAMETER: {"type": "object"}}
    if wanted.get("json_schema") is None:
        raise wrong_value("response_format.json_schema", "this type needs it")
    return {**parameters, PARAMETER: wanted["json_schema"]["schema"]}
