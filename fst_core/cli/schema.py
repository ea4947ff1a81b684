"""`fst schema`: the JSON Schema of pipeline.toml, for the installed plugins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fst_core.plugins import Offer


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of pipeline.toml, as the installed plugins define it.

    An editor that knows TOML completes and checks a pipeline by it: write it to a file, and name
    that file in the first line of the pipeline, `#:schema ./pipeline.schema.json`.
    """
    click.echo(json.dumps(schema(), indent=1, ensure_ascii=False))


def schema() -> dict[str, Any]:
    """Return the schema: a definition for each component, chosen by the table's `use`."""
    from fst_core.pipeline.pipeline import ARRAYS, TABLES, DatasetSettings, RunSettings
    from fst_core.plugins import registry

    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {
        "run": _table("run", RunSettings, definitions),
        "dataset": _table("dataset", DatasetSettings, definitions),
    }
    for table, kind in TABLES.items():
        if kind is None:
            continue
        members = [_component(offer, definitions) for offer in registry().of_kind(kind)]
        chosen = {"oneOf": members} if members else {"type": "object"}
        properties[table] = {"type": "array", "items": chosen} if table in ARRAYS else chosen
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of FST",
        "type": "object",
        "properties": {table: properties[table] for table in TABLES},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _component(offer: Offer, definitions: dict[str, Any]) -> dict[str, Any]:
    """Define the table that chooses a component, and return a reference to it."""
    from fst_core.plugins import registry

    name = f"{offer.kind}.{offer.plugin}.{offer.name}"
    names = [offer.address] if registry().clashes(offer) else [offer.name, offer.address]
    settings = offer.settings_class()
    table: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if settings is not None:
        table = _table(name, settings, definitions)
    definitions[name] = {
        **table,
        "title": f"{offer.kind} {offer.name}",
        "description": offer.component.summary,
        "properties": {"use": {"enum": names}, **table.get("properties", {})},
        "required": ["use", *table.get("required", [])],
    }
    return {"$ref": f"#/$defs/{name}"}


def _table(name: str, settings: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a settings class; what it refers to is defined under its own name."""
    table: dict[str, Any] = settings.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    for inner, definition in table.pop("$defs", {}).items():
        definitions[f"{name}.{inner}"] = definition
    return table
