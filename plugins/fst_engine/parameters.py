"""Parameters: the fields of a pipeline's samplers, which a request may override."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json

from fst_core.errors import UnsupportedParameter, UserError, one_line
from fst_core.settings import problems, suggestion, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_core import Settings
    from fst_core.interfaces.engine import Samplers

__all__ = ["Parameters"]


class Parameters:
    """The settings of a pipeline's samplers, merged with those of each request.

    Raises:
        UserError: two of the samplers have a field of the same name.
    """

    def __init__(self, samplers: Samplers) -> None:
        self._settings: list[Settings | None] = [settings for _, settings in samplers]
        self._owners: dict[str, int] = {}
        for number, (sampler, settings) in enumerate(samplers):
            for name in type(settings).model_fields if settings is not None else ():
                if name in self._owners:
                    other = type(samplers[self._owners[name]][0]).__name__
                    raise UserError(
                        f"the samplers {other} and {type(sampler).__name__} both have a field "
                        f"{name!r}: leave one of them out"
                    )
                self._owners[name] = number

    def merged(self, overrides: Mapping[str, Any]) -> tuple[Settings | None, ...]:
        """Return each sampler's settings for one request.

        Raises:
            UnsupportedParameter: no sampler has a parameter of that name.
            UserError: a value is wrong.
        """
        merged = list(self._settings)
        for name in overrides:
            if name not in self._owners:
                hint = suggestion(name, self._owners)
                raise UnsupportedParameter(name, f"no sampler has this parameter.{hint}")
        for number, settings in enumerate(self._settings):
            own = {n: value for n, value in overrides.items() if self._owners[n] == number}
            if own and settings is not None:
                cls = type(settings)
                try:
                    merged[number] = validate(cls, settings.model_dump(mode="json") | own)
                except (ValidationError, RecursionError) as error:
                    _check_json(own)
                    if isinstance(error, RecursionError):
                        raise
                    lines = (line.strip() for line in problems(error, cls, "", own))
                    raise UserError(" ".join(lines)) from None
        return tuple(merged)

    def schema(self) -> dict[str, Any]:
        """Return a JSON Schema for each parameter; its default is the pipeline's value."""
        properties: dict[str, Any] = {}
        for settings in self._settings:
            if settings is not None:
                values = settings.model_dump(mode="json")
                own = type(settings).model_json_schema()["properties"]
                properties |= {n: {**said, "default": values[n]} for n, said in own.items()}
        return properties


def _check_json(values: Mapping[str, Any]) -> None:
    """Check that each value can be read as JSON: half a character cannot, nor can what is too deep.

    Raises:
        UserError: one cannot; the message begins with its name.
    """
    for name, value in values.items():
        try:
            from_json(json.dumps({name: value}, default=str))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}: not a value of JSON: {one_line(error)}") from None
