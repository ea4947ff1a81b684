"""What a dataset says of itself: how much is in it, the table for people, and the manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import write_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fst_core.documents import Split

__all__ = ["TABLE", "Tally", "describe", "split_counts"]

TABLE = "description.json"
_COUNTED = "number_of_"


@dataclass(slots=True)
class Tally:
    """How much of a split was written."""

    documents: int = 0
    samples: int = 0
    tokens: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text in the samples that carries loss."""


def split_counts(tallies: Mapping[Split, Tally]) -> dict[str, int]:
    """Return what is counted of each split, by the names that a manifest has for it."""
    return {
        f"{_COUNTED}{split}_{what}": getattr(tally, what)
        for split, tally in tallies.items()
        for what in ("documents", "samples", "tokens", "bytes")
    }


def describe(
    directory: Path, kind: str, table: Mapping[str, Any], counts: Mapping[str, int], **fields: Any
) -> None:
    """Write the table, with all numbers, and the manifest, with further fields."""
    numbers = {name: value for name, value in counts.items() if name.startswith(_COUNTED)}
    text = json.dumps({**table, **numbers}, indent=1, ensure_ascii=False) + "\n"
    (directory / TABLE).write_text(text, "utf-8", newline="\n")
    write_manifest(directory, kind, **fields, counts=counts)
