"""Fingerprints: what a stage's result depends on, field by field, so that a change can be named."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.digests import digest_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fst_core.pipeline.pipeline import Part

__all__ = ["Fingerprint"]


class Fingerprint:
    """The fields that a result depends on: components, their formats and settings, and content.

    Versions do not count: a component raises its `format` when its output changes.
    """

    def __init__(self, **fields: Any) -> None:
        self._fields: dict[str, Any] = dict(fields)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields by name, once `settle` has found all of them."""
        self.settle()
        return self._fields

    def settle(self) -> None:
        """Wait for values that are still to be found.

        Raises:
            UserError: one of them cannot be found.
        """
        for name, value in self._fields.items():
            if isinstance(value, Future):
                self._fields[name] = value.result()

    def __getstate__(self) -> dict[str, Any]:
        return {"_fields": self.fields}  # another process cannot wait for what this one finds

    def add(self, name: str, value: Any) -> None:
        """Add one field; its value may be a `Future`."""
        self._fields[name] = value

    def add_part(self, name: str, part: Part) -> None:
        """Add a component's address, its format and every filled setting."""
        self.add(f"{name}.use", part.offer.address)
        self.add(f"{name}.format", part.offer.implementation().format)
        if part.settings is not None:
            for key, value in _flat(part.settings.model_dump(mode="json"), name):
                self.add(key, value)

    @property
    def digest(self) -> str:
        """The sha256 of all fields."""
        return digest_fields(self.fields)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Return a line for each field that differs from those of an earlier result."""
        names = sorted(self.fields.keys() | other.keys())
        return [
            f"{name}: {_shown(other, name)} -> {_shown(self.fields, name)}"
            for name in names
            if name not in self.fields or name not in other or self.fields[name] != other[name]
        ]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value


def _shown(fields: Mapping[str, Any], name: str) -> str:
    if name not in fields:
        return "(absent)"
    value = fields[name]
    if isinstance(value, str) and len(value) == 64:  # a digest
        return value[:12]
    return repr(value)
