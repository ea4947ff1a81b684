"""Plugins: discovery, isolation, names, look-up.

This is the only place that imports code by name; what it imports is named by an installed
entry point, never by a file that a user opens.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    distribution,
    distributions,
)
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from fst_core import hookspecs
from fst_core.components import KINDS, NAME, Component
from fst_core.errors import (
    AmbiguousComponent,
    MissingDependency,
    PluginError,
    UnknownComponent,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fst_core.settings import Settings

__all__ = [
    "DISTRIBUTION",
    "Offer",
    "Problem",
    "Registry",
    "Source",
    "registry",
    "sources",
    "told",
    "version_of",
]

DISTRIBUTION = "full-stack-transformer"
"""The distribution that bundles the core's own plugins."""
GROUP = "fst"
"""The group of entry points that name hook modules."""


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

    def need(self) -> str:
        """Return a sentence on what is missing and how to install it."""
        missing = ", ".join(self.missing())
        return f"{self.kind} '{self.name}' needs {missing}. Install it: {self.remedy()}"

    def remedy(self) -> str:
        """Return the pip line that installs what the component needs."""
        if self.distribution == DISTRIBUTION:
            return f"pip install '{DISTRIBUTION}[{self.plugin}]'"
        # The names in `needs` are those of imports; pip knows what the distribution depends on.
        return f"pip install {self.distribution}"

    def require(self) -> None:
        """Check that everything the component needs is installed.

        Raises:
            MissingDependency: something is not.
        """
        if self.missing():
            raise MissingDependency(self.need())

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

    def file(self) -> str | None:
        """Return the file that holds the implementation, without importing it; None if unknown."""
        try:
            spec = find_spec(self.component.target.partition(":")[0])
        except Exception:  # noqa: BLE001  # whatever a stranger's package does
            return None
        return spec.origin if spec else None

    def build(self, settings: Settings | None) -> Any:
        """Return a new instance of the component."""
        implementation = self.implementation()
        return implementation() if settings is None else implementation(settings)

    def _import(self, string: str) -> Any:
        module, _, path = string.partition(":")
        try:
            return functools.reduce(getattr, path.split("."), importlib.import_module(module))
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.kind} '{self.address}' of {self.provider} cannot be imported from {string!r}: "
                f"{told(error)}"
            ) from error


@dataclass(frozen=True, slots=True)
class Problem:
    """A plugin that could not be loaded."""

    plugin: str
    distribution: str
    version: str
    reason: str


class Source(NamedTuple):
    """An entry point, and the distribution that declares it."""

    entry: EntryPoint
    distribution: str
    version: str


class _Hooks(pluggy.PluginManager):
    """The hooks' callers; they look only at what a hook module itself defines."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        """Skip lazy names (PEP 562): to ask for one is to import what stands behind it."""
        return super().parse_hookimpl_opts(plugin, name) if name in vars(plugin) else None


class Registry:
    """What is installed: offers, problems and the hooks' callers."""

    def __init__(self) -> None:
        self.hooks = _Hooks("fst")
        self.hooks.add_hookspecs(hookspecs)
        self.offers: list[Offer] = []
        self.problems: list[Problem] = []
        self._bundled: dict[str, str] = {}

    def trace(self, hook: str, plugin: str, arguments: Mapping[str, Any]) -> None:
        """Print the call of a hook that is about to happen, under FST_TRACE_HOOKS=1."""
        if os.environ.get("FST_TRACE_HOOKS") == "1":
            shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            print(f"{plugin} {hook}({shown})", file=sys.stderr)  # noqa: T201  # that is what tracing is

    def discover(self) -> None:
        """Load every allowed plugin's hook module; one that fails becomes a Problem.

        `FST_PLUGINS="a,b"` allows only those plugins beside the bundled ones ("" allows none);
        `FST_STRICT_PLUGINS=1` raises the first problem.

        Raises:
            PluginError: under FST_STRICT_PLUGINS, a plugin could not be loaded.
        """
        allowed = os.environ.get("FST_PLUGINS")
        names = None if allowed is None else {name.strip() for name in allowed.split(",")}
        found, damaged = sources(GROUP)
        self.problems.extend(damaged)
        for entry, dist, version in sorted(found, key=lambda s: s.distribution != DISTRIBUTION):
            if dist == DISTRIBUTION or names is None or entry.name in names:
                self.add(entry, dist, version)

    def add(self, entry: EntryPoint, dist: str, version: str) -> None:
        """Load one plugin, from an entry point of a distribution."""
        if not NAME.fullmatch(entry.name):
            self._problem(entry.name, dist, version, f"its name does not match {NAME.pattern}")
            return
        if dist == DISTRIBUTION:
            self._bundled[entry.name] = f"{dist} {version}"
        elif entry.name in self._bundled:
            belongs = f"the name belongs to {self._bundled[entry.name]}"
            self._problem(entry.name, dist, version, belongs)
            return
        name = f"{dist}:{entry.name}"
        try:
            with redirect_stdout(sys.stderr):  # a command's own output stays clean
                module = entry.load()
                self.hooks.register(module, name=name)
                self.hooks.check_pending()
                offers = list(self._offers(module, entry.name, dist, version))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever a stranger's module does, exit included
            if self.hooks.has_plugin(name):
                self.hooks.unregister(name=name)
            self._problem(entry.name, dist, version, told(error), error)
        else:
            self.offers.extend(offers)

    def _offers(self, module: Any, plugin: str, dist: str, version: str) -> Iterator[Offer]:
        """Call the component hooks that one module implements."""
        for kind in KINDS:
            hook = vars(module).get(f"fst_{kind}s")
            if hook is None or getattr(hook, "fst_impl", None) is None:
                continue
            self.trace(f"fst_{kind}s", f"{dist}:{plugin}", {})
            components: Iterable[Component] = hook() or ()
            seen: set[str] = set()
            for component in components:
                if not isinstance(component, Component):
                    raise TypeError(f"fst_{kind}s returned {component!r}, which is not a Component")
                if component.name in seen:
                    raise ValueError(f"fst_{kind}s offers '{component.name}' twice")
                seen.add(component.name)
                yield Offer(kind, component, plugin, dist, version)

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
            remedy = (
                "Write the full address" if len({o.address for o in found}) > 1 else "Uninstall one"
            )
            raise AmbiguousComponent(f"{kind} '{name}' is offered by {who}. {remedy}.")
        known = ", ".join(self.names(kind)) or "none"
        raise UnknownComponent(
            f"unknown {kind} {name!r}.{self.hint(kind, name)} Installed: {known}{self.broken(name)}"
        )

    def names(self, kind: str) -> list[str]:
        """Return the short names of a kind, each once."""
        return sorted({o.name for o in self.of_kind(kind)})

    def hint(self, kind: str, name: str) -> str:
        """Return ` Did you mean 'x'?` for an unknown name, or nothing."""
        from fst_core.settings import suggestion

        return suggestion(name, self.names(kind))

    def broken(self, name: str) -> str:
        """Tell of the broken plugin that an unknown name belongs to, or of all that may have offered it."""
        plugin = name.partition("/")[0]
        concerned = [p for p in self.problems if p.plugin == plugin] or self.problems
        return "".join(
            f". Plugin '{p.plugin}' of {p.distribution} {p.version} is broken: {p.reason}"
            for p in concerned
        )


@functools.cache
def registry() -> Registry:
    """Return what is installed; discovered once a process."""
    found = Registry()
    found.discover()
    return found


def sources(group: str) -> tuple[list[Source], list[Problem]]:
    """Return the entry points of a group, by distribution and name, and the distributions that are damaged.

    They are read one by one, since the standard library's `entry_points` fails as a whole if one
    of them is damaged.
    """
    found: dict[tuple[str, str], Source] = {}
    damaged: list[Problem] = []
    for dist in distributions():
        try:
            if f"[{group}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            name, version = _identity(dist)
            for entry in dist.entry_points.select(group=group):
                # The first on the path wins: an editable install may be found on two.
                found.setdefault((name, entry.name), Source(entry, name, version))
        except Exception as error:  # noqa: BLE001  # whatever is written there
            place = f"a damaged distribution in {dist.locate_file('')}"
            damaged.append(Problem("unknown", place, "unknown", told(error)))
    return [found[key] for key in sorted(found)], damaged


def _identity(dist: Distribution) -> tuple[str, str]:
    """Return a distribution's name and version.

    Raises:
        ValueError: its metadata is missing or says neither.
    """
    name, version = dist.metadata["Name"], dist.metadata["Version"]
    if name is None or version is None:
        raise ValueError("its METADATA has no name or no version")
    return name, version


def _installed(root: str) -> bool:
    try:
        return root in sys.modules or find_spec(root) is not None
    except (ImportError, ValueError):  # a broken package, or one without a spec
        return False


def told(error: BaseException) -> str:
    """Return an error as one line."""
    name, text = type(error).__name__, one_line(error)
    return name if text == name else f"{name}: {text}"


def version_of(dist: str) -> str | None:
    """Return the version of an installed distribution; None if it is not installed."""
    try:
        return distribution(dist).version
    except PackageNotFoundError:
        return None
