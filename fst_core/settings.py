"""Settings: the validated keys of one component, and how wrong ones are told."""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic_core import ErrorDetails

__all__ = ["Settings", "key", "problems", "quoted", "suggestion", "validate"]


class Settings(BaseModel):
    """Base of every component's settings: unknown keys are refused, values never change.

    A field's description is the sentence in the string below it; `fst describe`, `fst init` and
    the settings reference print it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,  # TOML has types: a quoted number is a mistake, not a number
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


AnySettings = TypeVar("AnySettings", bound=BaseModel)


def validate(cls: type[AnySettings], values: Mapping[str, Any]) -> AnySettings:
    """Build settings from a table of TOML or JSON values.

    Raises:
        pydantic.ValidationError: `problems` turns it into lines.
    """
    # As JSON, so that strings become paths and arrays become tuples, yet "4" never becomes 4.
    return cls.model_validate_json(json.dumps(values, default=str))


def problems(
    error: ValidationError,
    cls: type[BaseModel],
    place: str,
    values: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yield a line for each wrong key, as `[place] key = value: what is wrong.`.

    Args:
        error: what `validate` raised.
        cls: the settings class.
        place: the table, with its brackets.
        values: the table's values, which tell keys from the names of a union's members.
    """
    details = error.errors(include_url=False)
    found: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for detail in details[:_MOST]:
        found.setdefault(_path(detail, values), []).append(detail)
    for path, same in found.items():
        # Of a union's members, the one that came furthest tells what is wrong.
        if not any(other[: len(path)] == path != other for other in found):
            yield f"{place} {_line(path, same, cls)}"
    if len(details) > _MOST:
        yield f"{place} and {len(details) - _MOST} more."


_MOST = 50
"""Errors of one table; a person reads no more."""


def _path(detail: ErrorDetails, values: Any) -> tuple[int | str, ...]:
    """Return the keys that lead to an error, without the names of a union's members."""
    if values is None:
        return detail["loc"]
    path: list[int | str] = []
    for key in detail["loc"]:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(key)
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else tuple(path)


def _line(path: tuple[int | str, ...], same: list[ErrorDetails], cls: type[BaseModel]) -> str:
    first = same[0]
    name = ".".join(map(key, path))
    if first["type"] == "extra_forbidden":
        return f"{name}: unknown key.{suggestion(str(path[-1]), _fields(cls, path[:-1]))}"
    if first["type"] == "missing":
        return f"{name}: this key is needed."
    wording = "; ".join(dict.fromkeys(map(_wording, same)))
    return f"{name} = {_shown(first['input'])}: {wording}." if name else f"{wording}."


def key(name: int | str) -> str:
    """Return a key as TOML writes it."""
    text = str(name)
    return text if re.fullmatch(r"[\w-]{1,80}", text) else quoted(text)


def quoted(text: str) -> str:
    """Return a string as TOML writes it, cut where it is long."""
    written = json.dumps(text, ensure_ascii=False)
    return written if len(written) <= 80 else f'{written[:76]}..."'


def suggestion(name: str, known: Collection[str]) -> str:
    """Return ` Did you mean 'x'?` for the known name most like this one, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _fields(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the settings class that a path of keys leads to."""
    for key in path:
        field = cls.model_fields.get(str(key))
        if field is None:
            continue  # an index, or the name of a union's member
        candidates = [field.annotation, *get_args(field.annotation)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        cls = nested[0]
    return list(cls.model_fields)


_WORDS = {
    "int": "not an integer",
    "float": "not a number",
    "bool": "neither true nor false",
    "string": "not a string",
    "list": "not an array",
    "tuple": "not an array",
    "dict": "not a table",
    "model": "not a table",
    "pattern": "not a regular expression",
}


def _wording(detail: ErrorDetails) -> str:
    """Return an error in the words of a pipeline's author."""
    kind, message, context = detail["type"], detail["msg"], detail.get("ctx", {})
    subject, _, reason = kind.partition("_")
    if reason in {"type", "parsing", "from_float", "regex"} and subject in _WORDS:
        return _WORDS[subject]
    if kind in {"too_short", "string_too_short"}:
        least = context["min_length"]
        return "empty" if least == 1 else f"shorter than {least}"
    if kind == "string_pattern_mismatch":
        return f"does not match {context['pattern']}"
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
    return message.replace("Input should be ", "should be ").rstrip(".")


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
