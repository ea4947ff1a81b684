from pathlib import Path
from typing import Literal

from pydantic import Field

from fst_core import Settings


class ScriptedSettings(Settings):
    """Settings of the engine `scripted`."""

    slots: int = Field(4, ge=1)
    """How many requests it answers at once; the others wait in line."""
    waiting: int = Field(1000, ge=0)
    """How many may wait; further ones are refused."""
    chat: Literal["trained", "default"] = "trained"
    """Whether its model has learned to chat."""
    context_length: int = 100_000
    """The context, in bytes of UTF-8, which are its tokens."""
    log: Path | None = None
    """Where it writes what it was asked and how that ended, a JSON object a line."""
