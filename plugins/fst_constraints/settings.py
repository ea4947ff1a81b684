"""What a pipeline may write in `[[sampler]]`, and a request may override."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from fst_core import Settings

__all__ = ["ConstraintSettings"]

_LONGEST = 32_000
"""Characters of a schema; what is larger takes llguidance too long."""


def _schema_text(value: dict[str, Any] | str | None) -> str | None:
    """Return a JSON schema as one text, however it was written."""
    if value is None:
        return None
    try:
        schema = json.loads(value) if isinstance(value, str) else value
        text = json.dumps(schema, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(schema, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # pydantic tells of a ValueError
    if len(text) > _LONGEST:
        raise ValueError(f"longer than {_LONGEST} characters")
    return text


class ConstraintSettings(Settings):
    """Settings of the sampler `constraint`; with the defaults it changes nothing."""

    json_schema: Annotated[dict[str, Any] | str | None, AfterValidator(_schema_text)] = None
    """A JSON schema, as an object or as its text: what is written is a JSON value that it allows."""
    regex: str | None = Field(None, min_length=1, max_length=4000)
    """A regular expression: the whole of what is written matches it."""

    @model_validator(mode="after")
    def _one_at_most(self) -> Self:
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("regex: not together with json_schema")
        return self

    @property
    def grammar(self) -> tuple[str, str] | None:
        """The field that constrains the text, and its value; None if nothing does."""
        for name in ("json_schema", "regex"):
            value = getattr(self, name)
            if value is not None:
                return name, value
        return None
