"""A plan: what a stage would do and why, found out before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fst_core.artefacts.publish import numbered
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fst_core.pipeline.fingerprint import Fingerprint

__all__ = ["Action", "Plan", "number"]

Action = Literal["reuse", "continue", "make"]
"""The result is there; it was begun; it has to be made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one stage would do."""

    stage: str
    action: Action
    directory: Path
    """Where the result is, or will be."""
    depends: Fingerprint
    """Everything that the result depends on."""
    reasons: tuple[str, ...] = ()
    """Why it has to be made: a line each."""

    @property
    def fingerprint(self) -> str:
        """The digest of everything that the result depends on."""
        return self.depends.digest

    @property
    def fields(self) -> Mapping[str, Any]:
        """The same, field by field."""
        return self.depends.fields

    def __str__(self) -> str:
        """Return the plan in words, as `fst run --explain` prints it."""
        words = {"reuse": "up to date", "continue": "goes on", "make": "to be made"}
        line = f"{self.stage}: {words[self.action]}: {self.directory}"
        return "\n  ".join([line, *self.reasons])


def number(
    stage: str,
    parent: Path,
    fingerprint: Fingerprint,
    described: Callable[[Path], Mapping[str, Any]],
    state: Callable[[Path], Action],
) -> Plan:
    """Plan a stage whose results are numbered directories: an equal one is used, else the next n is made.

    Args:
        stage: its name.
        parent: the directory of the numbered ones.
        fingerprint: what the result depends on.
        described: returns the `fingerprint` and `fields` of an earlier result.
        state: tells whether an equal earlier result is whole.
    """
    found = numbered(parent)
    reasons: list[str] = []
    compared = False
    for directory in reversed(found):
        try:
            earlier = described(directory)
            if earlier["fingerprint"] == fingerprint.digest:
                return Plan(stage, state(directory), directory, fingerprint)
        except ArtefactError as error:
            reasons.append(f"not used: {error}")
            continue
        if not compared:
            compared = True
            changed = fingerprint.differences(earlier["fields"])
            reasons.extend(f"changed since {directory.name}: {line}" for line in changed)
    following = int(found[-1].name) + 1 if found else 1
    return Plan(
        stage,
        "make",
        parent / str(following),
        fingerprint,
        tuple(reasons) or ("nothing has been made yet",),
    )
