"""Documents: what readers yield, and which of them are held out for validation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from fst_core.chance import uniform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "EMPTY",
    "Document",
    "Message",
    "ReadReport",
    "Split",
    "cut_last",
    "held_out",
    "place_of_cut",
]

Split = Literal["train", "valid"]
"""The two parts of a corpus."""


EMPTY = "empty documents"
"""The reason under which a reader counts the documents of nothing but white space that it left out."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    """Who speaks: "system", "user" or "assistant"."""
    content: str
    """What is said, as plain text; it never yields a control token."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus: either a text or a conversation.

    Raises:
        ValueError: both or neither of `text` and `messages` are given.
    """

    text: str | None = None
    """The text, its lines joined with a newline character."""
    messages: tuple[Message, ...] | None = None
    """The turns of a conversation."""
    meta: str | None = None
    """A label that the model may be conditioned on."""
    source: str = ""
    """Where it was read, as `file:line`, for messages to the user."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError("a document has either a text or messages")


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What a reading left out, and what it decided by itself."""

    dropped: Mapping[str, int] = field(default_factory=dict)
    """How many of what were left out, by a noun in the plural, such as "empty documents"."""
    encodings: Mapping[str, str] = field(default_factory=dict)
    """The encoding of each file for which one was chosen."""
    problems: tuple[str, ...] = ()
    """A line for each file that was left out, at most a hundred."""

    def __add__(self, other: ReadReport) -> ReadReport:
        """Return the report of two readings."""
        return ReadReport(
            dict(Counter(self.dropped) + Counter(other.dropped)),
            {**self.encodings, **other.encodings},
            self.problems + other.problems,
        )


def held_out(count: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which of `count` documents are held out for validation, (count,) bool.

    Each is chosen by a hash of the seed and its index, so that documents added at the end change
    nothing for those before them; of two or more, at least one is chosen and one is not.
    """
    chances = np.array([uniform(seed, index) for index in range(count)])
    chosen = chances < share
    if count > 1:
        chosen[chances.argmin()] = True
        chosen[chances.argmax()] = False
    return chosen


def cut_last(text: str, share: float) -> tuple[str, str]:
    """Cut the last share off a text, where `place_of_cut` says."""
    end, begin = place_of_cut(text, share)
    return text[:end], text[begin:]


def place_of_cut(text: str, share: float) -> tuple[int, int]:
    """Return where a text without its last share ends, and where that share begins.

    At the line end nearest to it, else at a space, else anywhere. A line end or space that would leave
    less than half of what stands before the share is not taken.
    """
    at = round(len(text) * (1 - share))
    for separator in ("\n", " "):
        ends = (text.rfind(separator, at // 2, at), text.find(separator, at))
        inside = [end for end in ends if 0 < end < len(text) - 1]
        if inside:
            end = min(inside, key=lambda end: abs(end - at))
            return end, end + 1
    at = min(max(at, 1), len(text) - 1)
    return at, at
