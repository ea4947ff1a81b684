"""The contract of all components, whatever their kind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import pytest
from pydantic import BaseModel, ValidationError

import fst_core
from fst_core.artefacts import record, resolve
from fst_core.plugins import Offer, registry
from fst_core.settings import Settings, validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["HEAVY", "ComponentContract"]

HEAVY = (
    "aiogram",
    "fastapi",
    "numpy",
    "pydantic",
    "pytorch_lightning",
    "tokenizers",
    "torch",
    "transformers",
)
"""Packages that a hook module must not import: `fst list-plugins` imports every hook module."""


class ComponentContract:
    """What every component does; the contract of each kind adds to it.

    A subclass of a kind's contract names the component, and settings as a pipeline would write
    them. It may add tests, and override the fixtures and methods that its contract documents, but
    no test: where a component cannot keep to one, the override says so.

        class TestPoems(ReaderContract):
            use = "poems"
            settings = {"folder": "poems"}

            @pytest.mark.xfail(reason="poems are dealt in another order each time")
            def test_documents_are_the_same_each_time(self, reader):
                super().test_documents_are_the_same_each_time(reader)

    It asserts that the summary is one sentence; that the hook module imports nothing heavy; that
    the target implements the interface of its kind; that unknown settings are rejected, every
    setting is described, and settings survive JSON; that what an artefact records leads back to the
    component; and that no test of the contract was silently overridden.
    """

    kind: ClassVar[str]
    """The kind of the component, set by each contract."""
    use: ClassVar[str]
    """The component's short name, or its full address `plugin/component`."""
    settings: ClassVar[Mapping[str, Any]] = {}
    """Its settings, as TOML values."""

    @property
    def offer(self) -> Offer:
        """The component and who offers it."""
        return registry().find(self.kind, self.use)

    def configured(self, **overrides: Any) -> Settings | None:
        """Return the settings, some of them overridden; None if the component has none."""
        cls = self.offer.settings_class()
        return None if cls is None else validate(cls, {**self.settings, **overrides})

    def build(self, **overrides: Any) -> Any:
        """Return a new instance of the component."""
        return self.offer.build(self.configured(**overrides))

    def test_the_summary_is_one_sentence(self) -> None:
        """It begins with a capital, a digit or a name in backticks, and ends with the only full stop."""
        summary = self.offer.component.summary
        assert re.fullmatch(r"[A-Z0-9`][^\n]*[^\s.]\.", summary)
        assert not re.search(r"[.!?]\s+[A-Z]", summary)

    def test_the_hook_module_imports_nothing_heavy(self) -> None:
        """Neither importing it nor calling its hook does; the heavy parts stand behind import strings."""
        offer = self.offer
        module = registry().hooks.get_plugin(f"{offer.distribution}:{offer.plugin}")
        assert module is not None
        told = json.dumps([sys.path, module.__name__, f"fst_{self.kind}s", HEAVY])
        found = subprocess.run(
            [sys.executable, "-c", _IMPORTED, told], check=True, capture_output=True, text=True
        )
        assert json.loads(found.stdout) == []

    def test_it_implements_its_interface(self) -> None:
        """The target is a class of the interface of its kind, and no method is missing."""
        implementation = self.offer.implementation()
        assert issubclass(implementation, getattr(fst_core, self.kind.capitalize()))
        assert not implementation.__abstractmethods__

    def test_unknown_settings_are_rejected(self) -> None:
        """A key that does not exist is an error, so that a typing mistake surfaces."""
        cls = self.offer.settings_class()
        if cls is None:
            assert not self.settings, "the component has no settings, and the contract names some"
            return
        with pytest.raises(ValidationError) as raised:
            validate(cls, {**self.settings, "no_such_setting": 1})
        assert [error["type"] for error in raised.value.errors()] == ["extra_forbidden"]

    def test_every_setting_is_described(self) -> None:
        """Each field has a string below it, which `fst describe` and `fst init` print."""
        cls = self.offer.settings_class()
        silent = [] if cls is None else [name for name, text in _descriptions(cls) if not text]
        assert silent == []

    def test_settings_survive_json(self) -> None:
        """An artefact keeps them as JSON, and equal ones come back."""
        settings = self.configured()
        if settings is None:
            return
        text = json.dumps(settings.model_dump(mode="json"), allow_nan=False)
        assert validate(type(settings), json.loads(text)) == settings

    def test_provenance_leads_back_to_the_component(self) -> None:
        """What an artefact records of the component finds it again."""
        if not hasattr(getattr(fst_core, self.kind.capitalize()), "format"):
            pytest.skip(f"no artefact records its {self.kind}")
        said = json.loads(json.dumps(record(self.offer, self.configured()), allow_nan=False))
        assert said["format"] >= 1
        assert resolve(self.kind, said, "here") is self.offer

    def test_no_test_of_the_contract_is_overridden(self) -> None:
        """A test that a subclass overrides or removes fails here, unless marked xfail with a reason."""
        cls = type(self)
        contract = next(c for c in cls.__mro__ if c.__module__.startswith(f"{__package__}."))
        tests = (name for name in dir(contract) if name.startswith("test_"))
        changed = [n for n in tests if getattr(cls, n) is not getattr(contract, n)]
        assert [name for name in changed if not _excused(getattr(cls, name))] == []


_IMPORTED = """
import importlib, json, sys
path, module, hook, heavy = json.loads(sys.argv[1])
sys.path[:] = path
before = set(sys.modules)
list(getattr(importlib.import_module(module), hook)())
print(json.dumps(sorted(set(heavy) & (set(sys.modules) - before))))
"""
"""Prints which heavy packages a hook module loads."""


def _descriptions(cls: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Yield every field with its description, those of nested tables too."""
    for name, field in cls.model_fields.items():
        yield f"{prefix}{name}", field.description
        for nested in _models(field.annotation):
            yield from _descriptions(nested, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _excused(test: Any) -> bool:
    marks = getattr(test, "pytestmark", ())
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
