"""Documents: what readers yield, and which of them are held out for validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Document", "Message", "Split"]

Split = Literal["train", "valid"]
"""The two parts of a corpus."""


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
