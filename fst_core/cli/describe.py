"""`fst describe`: one component, its settings and where it comes from."""

from __future__ import annotations

import shutil
import textwrap

import click

from fst_core.components import KINDS


@click.command("describe")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@click.argument("name")
def command(kind: str, name: str) -> None:
    """Show the component NAME of a KIND: what it is, where it comes from, and its settings.

    KIND is one of reader, tokenizer, model, trainer, sampler, evaluator, engine, executor, frontend.
    """
    from fst_core.cli import printable
    from fst_core.cli.columns import columns
    from fst_core.cli.fields import fields
    from fst_core.plugins import registry

    offer = registry().find(kind, name)
    facts = [
        ("address", offer.address),
        ("from", offer.provider),
        ("file", offer.file() or "unknown"),
        ("state", offer.need() if offer.missing() else "ready"),
    ]
    click.echo(printable(f"{kind} {offer.name}: {offer.component.summary}\n"))
    for line in columns(facts):
        click.echo(printable(line))
    cls = offer.settings_class()
    if cls is None:
        click.echo("\nIt has no settings.")
        return
    click.echo("\nSettings:")
    width = min(shutil.get_terminal_size().columns, 100)
    for field in fields(cls):
        given = f" = {field.literal}" if field.literal else ""
        kind = f"{field.type}, needed" if field.required else field.type
        told = textwrap.fill(
            field.description, width, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
        click.echo(printable(f"\n  {field.name}{given}  ({kind})\n{told}"))
