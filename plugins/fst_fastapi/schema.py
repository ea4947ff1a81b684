"""The part of JSON Schema that requests are described by, and checked with."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from fst_fastapi.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["check"]

_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_ARTICLES: Final = {"integer": "an", "array": "an", "object": "an"}
_BOUNDS: Final[Mapping[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (lambda value, bound: value >= bound, "at least"),
    "maximum": (lambda value, bound: value <= bound, "at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "more than"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "less than"),
}
_DEEPEST: Final = 100
"""How deeply a value may be nested that no schema describes; parsers end at twice as much."""
_SIZES: Final[Mapping[str, tuple[type, str]]] = {
    "maxLength": (str, "characters"),
    "minLength": (str, "characters"),
    "maxItems": (list, "entries"),
    "minItems": (list, "entries"),
    "maxProperties": (dict, "keys"),
    "minProperties": (dict, "keys"),
}


def check(value: Any, schema: Mapping[str, Any], place: str) -> None:
    """Check a value; what schemas say beyond the checked keywords is left to whom it is for.

    Raises:
        ApiError: the value is wrong; its `param` is the place of what is.
    """
    if "anyOf" in schema:
        _any_of(value, schema["anyOf"], place)
        return
    _type(value, schema, place)
    if isinstance(value, str):
        _text(value, place)
    _range(value, schema, place)
    _sizes(value, schema, place)
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        known = ", ".join(map(_shown, schema["enum"]))
        raise _wrong(place, f"only {known} is supported", code="unsupported_value")
    if isinstance(value, list):
        _items(value, schema, place)
    if isinstance(value, dict):
        _members(value, schema, place)


def _any_of(value: Any, choices: list[Mapping[str, Any]], place: str) -> None:
    """Check a value against the choice that is most like it."""
    best = max(choices, key=lambda choice: _likeness(value, choice))
    check(value, best, place)


def _likeness(value: Any, choice: Mapping[str, Any]) -> int:
    """Return 0 if a value is of another type than a choice, else 1, 2 if its first entry fits too."""
    if not _has_type(value, choice):
        return 0
    items = choice.get("items")
    if not isinstance(value, list) or not value or not items:
        return 1
    return 1 + _likeness(value[0], items) if "anyOf" not in items else 2


def _type(value: Any, schema: Mapping[str, Any], place: str) -> None:
    if not _has_type(value, schema):
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        wanted = " or ".join(f"{_ARTICLES.get(kind, 'a')} {kind}" for kind in kinds)
        raise _wrong(place, f"should be {wanted}", code="invalid_type")


def _has_type(value: Any, schema: Mapping[str, Any]) -> bool:
    if "type" not in schema:
        return True
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(_TYPES[kind](value) for kind in kinds if kind in _TYPES)


def _text(value: str, place: str) -> None:
    if "\0" in value:
        raise _wrong(place, "has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(place, f"half a character at position {error.start}") from None


def _range(value: Any, schema: Mapping[str, Any], place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(place, "not a finite number")
    for keyword, (holds, words) in _BOUNDS.items():
        if keyword in schema and not holds(value, schema[keyword]):
            raise _wrong(place, f"should be {words} {schema[keyword]}")


def _sizes(value: Any, schema: Mapping[str, Any], place: str) -> None:
    for keyword, (kind, unit) in _SIZES.items():
        if keyword not in schema or not isinstance(value, kind):
            continue
        bound, size = schema[keyword], len(value)  # type: ignore[arg-type]  # of a sized kind
        if keyword.startswith("max") and size > bound:
            raise _wrong(place, f"has {size} {unit}, at most {bound} are supported")
        if keyword.startswith("min") and size < bound:
            raise _wrong(place, f"has {size} {unit}, at least {bound} are needed")


def _items(value: list[Any], schema: Mapping[str, Any], place: str) -> None:
    items = schema.get("items")
    if not items:
        _undescribed(value, place)
        return
    if items.get("type") == "integer" and all(type(each) is int for each in value):
        # Ids of a prompt: many, and all of the same kind.
        low, high = min(value, default=0), max(value, default=0)
        if items.get("minimum", low) <= low and high <= items.get("maximum", high):
            return
    for index, each in enumerate(value):
        check(each, items, f"{place}[{index}]")


def _members(value: dict[str, Any], schema: Mapping[str, Any], place: str) -> None:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name, each in value.items():
        _text(name, place)
        at = f"{place}.{name:.80}"
        if name in known:
            check(each, known[name], at)
        elif others is False:
            raise _wrong(at, "this field is not known", code="unknown_parameter")
        elif isinstance(others, dict):
            check(each, others, at)
        else:
            _undescribed(each, at)
    for name in schema.get("required", ()):
        if name not in value:
            raise _wrong(f"{place}.{name}", "this field is needed", code="missing_parameter")


def _undescribed(value: Any, place: str, depth: int = 1) -> None:
    """Check what no schema describes, as far as any JSON has to be right."""
    if depth > _DEEPEST:
        raise _wrong(place, f"nested more than {_DEEPEST} deep")
    if isinstance(value, str):
        _text(value, place)
    elif isinstance(value, list):
        for each in value:
            _undescribed(each, place, depth + 1)
    elif isinstance(value, dict):
        for name, each in value.items():
            _text(name, place)
            _undescribed(each, place, depth + 1)
    else:
        _range(value, {}, place)


def _same(value: Any, each: Any) -> bool:
    """Say whether two JSON values are the same; 1, 1.0 and true are not."""
    return isinstance(value, bool) == isinstance(each, bool) and bool(value == each)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _wrong(place: str, what: str, *, code: str = "invalid_value") -> ApiError:
    return ApiError(400, f"{place}: {what}", code=code, param=place)
