"""Settings with a field of every type that a pipeline may write."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from fst_core import Settings


class Inner(Settings):
    """A table inside of a table."""

    depth: int = 1
    """How deep."""
    width: float = Field(1.5, gt=0)
    """How wide."""


class ToySettings(Settings):
    """Settings of every `toy`."""

    size: int = Field(4, ge=1, le=64)
    """How large."""
    rate: float = 0.5
    """How fast."""
    loud: bool = False
    """Whether it makes noise."""
    word: str = "toy"
    """What it says."""
    place: Path = Path("toys")
    """Where it lies."""
    words: tuple[str, ...] = ("one", "two")
    """What it may say."""
    color: Literal["red", "green"] = "red"
    """How it looks."""
    limit: int | None = None
    """How often; without it for ever."""
    period: int | str = 1
    """How long: seconds, or a word."""
    inner: Inner = Inner()
    """What is inside of it."""
