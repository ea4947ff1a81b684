"""The keys of settings as people read them: name, type, default, description."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

__all__ = ["Field", "fields"]

_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_FORMATS = {"path": "path", "regex": "regular expression"}


@dataclass(frozen=True, slots=True)
class Field:
    """One key that a pipeline may write."""

    name: str
    """With dots where it lies in a table of its own, as `lightning.max_epochs`."""
    type: str
    """In words, as `integer >= 1`."""
    required: bool
    default: Any
    """As JSON would hold it; None also where the key may be left out."""
    description: str
    """The first paragraph: one sentence."""

    @property
    def literal(self) -> str:
        """The default as TOML writes it; nothing where there is none."""
        return "" if self.default is None else json.dumps(self.default, ensure_ascii=False)


def fields(cls: type[BaseModel], prefix: str = "") -> Iterator[Field]:
    """Yield the keys of a settings class, those of nested tables after the others."""
    schema = cls.model_json_schema()
    nested: list[tuple[str, type[BaseModel]]] = []
    for name, field in cls.model_fields.items():
        inner = _inner(field)
        if inner is not None:
            nested.append((f"{prefix}{name}.", inner))
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield Field(
            f"{prefix}{name}",
            _type(schema["properties"][name], schema.get("$defs", {})),
            field.is_required(),
            to_jsonable_python(default),
            " ".join((field.description or "").split("\n\n")[0].split()),
        )
    for path, inner in nested:
        yield from fields(inner, path)


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    """Return the settings class of a field that is a table."""
    members = [field.annotation, *get_args(field.annotation)]
    tables = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
    return tables[0] if tables else None


def _type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return a JSON Schema in words."""
    if "$ref" in schema:
        return _type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
    if "anyOf" in schema:
        members = [m for m in schema["anyOf"] if m.get("type") != "null"]
        return " or ".join(dict.fromkeys(_type(member, definitions) for member in members))
    kind = schema.get("type", "anything")
    if kind == "array":
        items = schema.get("items", {})
        return f"array of {_type(items, definitions)}" if items else "array"
    if kind == "object":
        return "table"
    limits = [f"{sign} {schema[name]}" for name, sign in _LIMITS.items() if name in schema]
    return f"{_FORMATS.get(schema.get('format', ''), kind)} {', '.join(limits)}".rstrip()
