"""A component: what a plugin tells about one implementation before anything of it is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["KINDS", "NAME", "Component"]

KINDS: Final = (
    "reader",
    "tokenizer",
    "model",
    "trainer",
    "sampler",
    "evaluator",
    "engine",
    "executor",
    "frontend",
)
"""The kinds of components, in the order in which data meets them."""

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
"""What names of plugins, of components and of commands match."""
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Component:
    """One implementation that a plugin offers; hooks yield these, and they cost nothing.

    Raises:
        ValueError: a name or an import string is malformed.
    """

    name: str
    """What pipeline.toml writes after `use`; unique within a kind: `[a-z][a-z0-9-]{0,63}`."""
    target: str
    """Import string `package.module:Class` of the implementation, imported on first use."""
    summary: str
    """One sentence for `fst list-plugins`."""
    settings: str | None = None
    """Import string of its Settings class; None if it has no settings."""
    needs: tuple[str, ...] = ()
    """Top-level packages that the target imports, probed without importing them."""
    suffixes: tuple[str, ...] = ()
    """Readers only: the file endings, such as ".pdf", by which a folder's files find it."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"component name {self.name!r} does not match {NAME.pattern}")
        for string in filter(None, (self.target, self.settings)):
            if not _TARGET.fullmatch(string):
                raise ValueError(
                    f"{self.name}: {string!r} is not of the form 'package.module:Class'"
                )
        if not self.summary.strip():
            raise ValueError(f"{self.name}: the summary is empty")
