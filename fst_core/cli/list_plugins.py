"""`fst list-plugins`: every component that is installed, and every plugin that is broken."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fst_core.components import KINDS

if TYPE_CHECKING:
    from fst_core.plugins import Offer, Registry

_HEADER = ("KIND", "NAME", "FROM", "STATE", "SUMMARY")


@click.command("list-plugins")
@click.option("--kind", type=click.Choice(KINDS), help="Only components of this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(kind: str | None, *, as_json: bool) -> None:
    """List the components that plugins offer, and the plugins that could not be loaded.

    A name that two plugins offer is shown as its full address `plugin/component`, which is what a
    pipeline then has to write.
    """
    from fst_core.plugins import registry

    found = registry()
    offers = [offer for k in KINDS if kind in (None, k) for offer in found.of_kind(k)]
    if as_json:
        listed = {
            "components": [_described(found, offer) for offer in offers],
            "broken": [asdict(problem) for problem in found.problems],
        }
        click.echo(json.dumps(listed, indent=1, ensure_ascii=False))
    else:
        _print(found, offers)


def _print(registry: Registry, offers: list[Offer]) -> None:
    from fst_core.cli import printable
    from fst_core.cli.columns import columns
    from fst_core.cli.health import broken, clashes, missing

    rows = [
        (
            offer.kind,
            offer.address if registry.clashes(offer) else offer.name,
            offer.provider,
            _state(registry, offer),
            offer.component.summary,
        )
        for offer in offers
    ]
    for line in columns([_HEADER, *rows]):
        click.echo(printable(line))
    for title, lines in (
        ("To install", missing(offers)),
        ("Offered twice", clashes(registry, offers)),
        ("Broken", broken(registry)),
    ):
        if lines:
            click.echo(f"\n{title}:")
            for line in lines:
                click.echo(printable(f"  {line}"))


def _state(registry: Registry, offer: Offer) -> str:
    state = f"needs {', '.join(offer.missing())}" if offer.missing() else "ready"
    return f"{state}, clash" if registry.clashes(offer) else state


def _described(registry: Registry, offer: Offer) -> dict[str, Any]:
    missing = offer.missing()
    return {
        "kind": offer.kind,
        "name": offer.name,
        "plugin": offer.plugin,
        "address": offer.address,
        "distribution": offer.distribution,
        "version": offer.version,
        "state": "needs" if missing else "ready",
        "missing": missing,
        "remedy": offer.remedy() if missing else None,
        "clashes": [f"{o.address} of {o.provider}" for o in registry.clashes(offer)],
        "summary": offer.component.summary,
    }
