"""Settings: the validated keys of one component, and how wrong ones are told."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from pydantic_core import ErrorDetails

__all__ = ["Settings", "problems", "suggestion", "validate"]


class Settings(BaseModel):
    """Base of every component's settings: unknown keys are refused, values never change.

    A field's description is the sentence in the string below it; `fst describe`, `fst init` and
    the settings reference print it.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,  # TOML has types: a quoted number is a mistake, not a number
        use_attribute_docstrings=True,
        validate_default=True,
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


def problems(error: ValidationError, cls: type[BaseModel], place: str) -> Iterator[str]:
    """Yield a line for each error, as `[place] key = value: what is wrong.`."""
    for detail in error.errors():
        path = ".".join(map(str, detail["loc"]))
        kind = detail["type"]
        if kind == "extra_forbidden":
            known = _fields(cls, detail["loc"][:-1])
            yield f"{place} {path}: unknown key.{suggestion(str(detail['loc'][-1]), known)}"
        elif kind == "missing":
            yield f"{place} {path}: this key is needed."
        elif path:
            yield f"{place} {path} = {_shown(detail['input'])}: {_wording(detail)}."
        else:
            yield f"{place} {_wording(detail)}."


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
    "path": "not a path",
}


def _wording(detail: ErrorDetails) -> str:
    """Return an error in the words of a pipeline's author."""
    subject, _, reason = detail["type"].partition("_")
    if reason in {"type", "parsing", "from_float", "attributes_type"} and subject in _WORDS:
        return _WORDS[subject]
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if detail["type"] == "value_error":
        return message.rstrip(".")
    return f"should be {message}".rstrip(".") if "Input" in detail["msg"] else message.rstrip(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
