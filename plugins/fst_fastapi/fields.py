"""The fields of requests: the table checks them, documents them and is the OpenAPI document.

A field is used, or it is known and harmless at some values, which are then the only ones accepted.
Any other field is refused by its name, but for those of the samplers, which the engine tells.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fst_fastapi.errors import ApiError
from fst_fastapi.field_table import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    FIELDS,
    NEUTRAL,
    OLD,
    OLD_DEFAULTS,
    TOKENIZE,
    Field,
    same,
)
from fst_fastapi.formats import PARAMETER, RESPONSE_FORMAT, constrained
from fst_fastapi.schema import check

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Checker", "Fields"]


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one endpoint, with those of an engine's samplers."""

    path: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The samplers' parameters, each a JSON Schema whose default is the pipeline's value."""

    @property
    def table(self) -> dict[str, Field]:
        """Return the endpoint's own fields by their names."""
        own = {each.name: each for each in FIELDS if self.path in each.paths}
        if self.path in {COMPLETIONS, CHAT}:
            for name, value in NEUTRAL.items():
                if name not in self.sampling:
                    own[name] = same(
                        name, (COMPLETIONS, CHAT), value, does="No sampler of this model has it."
                    )
            if PARAMETER in self.sampling:
                own[RESPONSE_FORMAT.name] = RESPONSE_FORMAT
        return own

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the request."""
        own = self.table
        properties = {
            name: _described(each.schema, each.does, each.default, needed=each.needed)
            for name, each in own.items()
        }
        for name, said in self.parameters().items():
            if name not in own:
                properties[name] = _described(
                    {k: v for k, v in said.items() if k not in {"description", "default"}},
                    said.get("description", "A parameter of a sampler."),
                    said.get("default"),
                    needed=False,
                )
        schema = {"type": "object", "properties": properties, "additionalProperties": False}
        needed = [name for name, each in own.items() if each.needed]
        return {**schema, "required": needed} if needed else schema

    def parameters(self) -> dict[str, Any]:
        """Return the samplers' parameters, with the defaults of this endpoint."""
        if self.path in {TOKENIZE, DETOKENIZE}:
            return {}
        defaults = OLD_DEFAULTS if self.path == OLD else {}
        return {
            name: {**_closed(said), **({"default": defaults[name]} if name in defaults else {})}
            for name, said in self.sampling.items()
        }


class Checker:
    """Checks the bodies of one endpoint's requests."""

    def __init__(self, fields: Fields) -> None:
        self._table = fields.table
        self._parameters = fields.parameters()

    def check(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Return the fields that are used, with their defaults, and the samplers' parameters.

        Raises:
            ApiError: a field is unknown, missing, or has a value that is not supported.
        """
        values = {name: each.default for name, each in self._table.items() if each.used}
        parameters: dict[str, Any] = {}
        for name, value in body.items():
            own = self._table.get(name)
            if own is None and name not in self._parameters:
                raise self._unknown(name)
            if value is None and not (own and own.needed):
                continue
            check(value, own.schema if own else self._parameters[name], name)
            if own is None:
                parameters[name] = value
            else:
                values[name] = value
        for name, own in self._table.items():
            if own.needed and name not in body:
                raise ApiError(
                    400, f"{name}: this field is needed", code="missing_parameter", param=name
                )
        return values, constrained(parameters, values.pop(RESPONSE_FORMAT.name, None))

    def _unknown(self, name: str) -> ApiError:
        name = name.encode(errors="replace").decode()[:80]
        near = difflib.get_close_matches(name, [*self._table, *self._parameters], n=1)
        hint = f". Did you mean '{near[0]}'?" if near else ""
        wrong = f"{name}: this field is not supported{hint}"
        return ApiError(400, wrong, code="unknown_parameter", param=name)


def _described(
    schema: Mapping[str, Any], does: str, default: Any, *, needed: bool
) -> dict[str, Any]:
    whole: dict[str, Any] = dict(schema) if needed else {"anyOf": [dict(schema), {"type": "null"}]}
    whole["description"] = does
    return whole if default is None else {**whole, "default": default}


def _closed(schema: Any) -> Any:
    """Return a schema without what it refers to elsewhere, which is then not checked here."""
    if isinstance(schema, dict):
        return {} if "$ref" in schema else {name: _closed(each) for name, each in schema.items()}
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema
