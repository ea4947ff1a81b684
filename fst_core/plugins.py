"""Plugins: discovery, isolation, names, look-up.

This is the only place that imports code by name; what it imports is named by an installed
entry point, never by a file that a user opens.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from fst_core import hookspecs
from fst_core.components import KINDS, Component
from fst_core.errors import (
    AmbiguousComponent,
    MissingDependency,
    PluginError,
    UnknownComponent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fst_core.settings import Settings

__all__ = ["DISTRIBUTION", "Offer", "Problem", "Registry", "registry"]

DISTRIBUTION = "full-stack-transformer"
"""The distribution that bundles the core's own plugins."""
GROUP = "fst"
"""The group of entry points that name hook modules."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Offer:
    """A component together with who offers it."""

    kind: str
    component: Component
    plugin: str
    """The entry point's name."""
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """The component's short name."""
        return self.component.name

    @property
    def address(self) -> str:
        """The full address `plugin/component`, which is never ambiguous."""
        return f"{self.plugin}/{self.component.name}"

    @property
    def provider(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}"

    def missing(self) -> list[str]:
        """Return the packages that the component needs and that are not installed."""
        return [root for root in self.component.needs if not _installed(root)]

    def remedy(self) -> str:
        """Return the pip line that installs what the component needs."""
        if self.distribution == DISTRIBUTION:
            return f"pip install '{DISTRIBUTION}[{self.plugin}]'"
        return f"pip install {' '.join(self.missing())}"

    def require(self) -> None:
        """Check that everything the component needs is installed.

        Raises:
            MissingDependency: something is not.
        """
        if missing := self.missing():
            raise MissingDependency(
                f"{self.kind} '{self.name}' needs {', '.join(missing)}. Install it: {self.remedy()}"
            )

    def settings_class(self) -> type[Settings] | None:
        """Import the component's Settings class; None if it has no settings.

        Raises:
            PluginError: the import string leads nowhere.
        """
        return None if self.component.settings is None else self._import(self.component.settings)

    def implementation(self) -> Any:
        """Import the component's class.

        Raises:
            MissingDependency: a package that it needs is not installed.
            PluginError: the import string leads nowhere, or the module fails to import.
        """
        self.require()
        return self._import(self.component.target)

    def build(self, settings: Settings | None) -> Any:
        """Return a new instance of the component."""
        implementation = self.implementation()
        return implementation() if settings is None else implementation(settings)

    def _import(self, string: str) -> Any:
        module, _, path = string.partition(":")
        try:
            return functools.reduce(getattr, path.split("."), importlib.import_module(module))
        except Exception as error:
            raise PluginError(
                f"{self.kind} '{self.address}' of {self.provider} cannot be imported from {string!r}: "
                f"{_told(error)}"
            ) from error


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin that could not be loaded."""

    plugin: str
    distribution: str
    version: str
    reason: str


class Registry:
    """What is installed: offers, problems and the hooks' callers."""

    def __init__(self) -> None:
        self.hooks = pluggy.PluginManager("fst")
        self.hooks.add_hookspecs(hookspecs)
        self.offers: list[Offer] = []
        self.problems: list[Problem] = []
        if os.environ.get("FST_TRACE_HOOKS") == "1":
            self.hooks.trace.root.setwriter(lambda text: print(text, end="", file=sys.stderr))  # noqa: T201  # that is what tracing is
            self.hooks.enable_tracing()

    def discover(self) -> None:
        """Load every allowed plugin's hook module; one that fails becomes a Problem.

        `FST_PLUGINS="a,b"` allows only those plugins beside the bundled ones ("" allows none);
        `FST_STRICT_PLUGINS=1` raises the first problem.

        Raises:
            PluginError: under FST_STRICT_PLUGINS, a plugin could not be loaded.
        """
        allowed = os.environ.get("FST_PLUGINS")
        names = None if allowed is None else {name.strip() for name in allowed.split(",")}
        for entry, dist, version in _entry_points():
            if dist != DISTRIBUTION and names is not None and entry.name not in names:
                continue
            self.add(entry, dist, version)

    def add(self, entry: EntryPoint, dist: str, version: str) -> None:
        """Load one plugin, from an entry point of a distribution."""
        if not _NAME.fullmatch(entry.name):
            self._problem(entry.name, dist, version, f"its name does not match {_NAME.pattern}")
            return
        taken = next((o for o in self.offers if o.plugin == entry.name and o.distribution != dist), None)
        if taken is not None and taken.distribution == DISTRIBUTION:
            self._problem(entry.name, dist, version, f"the name belongs to {taken.provider}")
            return
        try:
            module = entry.load()
            name = f"{dist}:{entry.name}"
            self.hooks.register(module, name=name)
            self.hooks.check_pending()
            offers = list(_offers(module, entry.name, dist, version))
        except (Exception, SystemExit) as error:  # whatever a stranger's module does
            if self.hooks.has_plugin(f"{dist}:{entry.name}"):
                self.hooks.unregister(name=f"{dist}:{entry.name}")
            self._problem(entry.name, dist, version, _told(error), error)
        else:
            self.offers.extend(offers)

    def _problem(
        self, plugin: str, dist: str, version: str, reason: str, cause: BaseException | None = None
    ) -> None:
        if os.environ.get("FST_STRICT_PLUGINS") == "1":
            raise PluginError(f"plugin '{plugin}' of {dist} {version}: {reason}") from cause
        self.problems.append(Problem(plugin, dist, version, reason))

    def of_kind(self, kind: str) -> list[Offer]:
        """Return the offers of a kind, by name."""
        return sorted((o for o in self.offers if o.kind == kind), key=lambda o: (o.name, o.address))

    def clashes(self, offer: Offer) -> list[Offer]:
        """Return the other offers of the same kind and name."""
        same = (o for o in self.of_kind(offer.kind) if o.name == offer.name)
        return [o for o in same if o is not offer]

    def find(self, kind: str, name: str) -> Offer:
        """Return the offer of a short name or a full address `plugin/component`.

        Raises:
            UnknownComponent: nothing has that name.
            AmbiguousComponent: the short name is offered twice.
        """
        offers = self.of_kind(kind)
        found = [o for o in offers if name in (o.name, o.address)]
        if len(found) == 1:
            return found[0]
        if found:
            who = " and ".join(f"{o.provider} (as '{o.address}')" for o in found)
            remedy = "Write the full address" if len({o.address for o in found}) > 1 else "Uninstall one"
            raise AmbiguousComponent(f"{kind} '{name}' is offered by {who}. {remedy}.")
        raise UnknownComponent(self._unknown(kind, name, offers))

    def _unknown(self, kind: str, name: str, offers: list[Offer]) -> str:
        from fst_core.settings import suggestion

        known = sorted({o.name for o in offers})
        hint = suggestion(name, known)
        sentence = f"unknown {kind} '{name}'.{hint} Installed: {', '.join(known) or 'none'}"
        plugin = name.partition("/")[0]
        for problem in self.problems:
            if problem.plugin == plugin:
                sentence += f". Plugin '{plugin}' of {problem.distribution} {problem.version} is broken: {problem.reason}"
            elif not hint:
                sentence += f". Plugin '{problem.plugin}' could not be loaded (see `fst list-plugins`)"
        return sentence


@functools.cache
def registry() -> Registry:
    """Return what is installed; discovered once a process."""
    found = Registry()
    found.discover()
    return found


def _entry_points() -> Iterator[tuple[EntryPoint, str, str]]:
    """Yield entry points with their distribution and version, the bundled distribution's first."""

    def order(entry: EntryPoint) -> tuple[bool, str, str]:
        return (_distribution(entry)[0] != DISTRIBUTION, _distribution(entry)[0], entry.name)

    seen: set[tuple[str, str]] = set()
    for entry in sorted(entry_points(group=GROUP), key=order):
        dist, version = _distribution(entry)
        if (dist, entry.name) not in seen:  # an editable install may be found on two paths
            seen.add((dist, entry.name))
            yield entry, dist, version


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist is not None else ("unknown", "0")


def _offers(module: Any, plugin: str, dist: str, version: str) -> Iterator[Offer]:
    """Call the component hooks that one module implements."""
    for kind in KINDS:
        hook = getattr(module, f"fst_{kind}s", None)
        if hook is None or getattr(hook, "fst_impl", None) is None:
            continue
        components: Iterable[Component] = hook() or ()
        seen: set[str] = set()
        for component in components:
            if not isinstance(component, Component):
                raise TypeError(f"fst_{kind}s returned {component!r}, which is not a Component")
            if component.name in seen:
                raise ValueError(f"fst_{kind}s offers '{component.name}' twice")
            seen.add(component.name)
            yield Offer(kind, component, plugin, dist, version)


def _installed(root: str) -> bool:
    try:
        return root in sys.modules or find_spec(root) is not None
    except (ImportError, ValueError):  # a broken package, or one without a spec
        return False


def _told(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def version_of(dist: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return distribution(dist).version
    except PackageNotFoundError:
        return None
