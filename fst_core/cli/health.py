"""What is wrong with the installed plugins, as lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core.errors import AmbiguousComponent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core.plugins import Offer, Registry

__all__ = ["broken", "clashes", "missing"]


def broken(registry: Registry) -> list[str]:
    """Return a line for each plugin that could not be loaded."""
    return [f"{p.plugin} of {p.distribution} {p.version}: {p.reason}" for p in registry.problems]


def clashes(registry: Registry, offers: Sequence[Offer]) -> list[str]:
    """Return a line for each name that is offered more than once."""
    lines: list[str] = []
    for kind, name in dict.fromkeys((o.kind, o.name) for o in offers):
        try:
            registry.find(kind, name)
        except AmbiguousComponent as error:
            lines.append(str(error))
    return lines


def missing(offers: Sequence[Offer]) -> list[str]:
    """Return the pip lines that are missing, each with the components that it makes ready."""
    remedies: dict[str, list[str]] = {}
    for offer in offers:
        if offer.missing():
            remedies.setdefault(offer.remedy(), []).append(f"{offer.kind} {offer.name}")
    return [f"{remedy}  for {', '.join(names)}" for remedy, names in remedies.items()]
