"""Conversations out of the messages of a chat."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from fst_core import Document, Message
from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    from fst_core.reading.tally import Tally
    from fst_documents.settings import ChatSettings

__all__ = ["FORWARDED", "SERVICE", "WITHOUT_TEXT", "Said", "check_author", "conversations"]

FORWARDED = "forwarded messages"
SERVICE = "service messages"
WITHOUT_TEXT = "messages without text"
ONE_SIDED = "conversations without a message of mine"
"""The reasons under which what is left out is counted."""

_MOST_AUTHORS = 20


@dataclass(frozen=True, slots=True)
class Said:
    """A message of a chat."""

    author: str
    mine: bool
    seconds: float
    """When, since any moment."""
    text: str
    source: str


def conversations(
    messages: Iterable[Said], settings: ChatSettings, tally: Tally, *, group: bool
) -> Iterator[Document]:
    """Yield the conversations of one chat: what was said without a long silence.

    Messages of one side that follow each other are one turn, a message a line. A conversation in
    which I say nothing teaches nothing of how I speak: it is counted.

    Args:
        messages: in the order in which they were sent.
        settings: the silence, and whether names are shown.
        tally: where conversations are counted that are left out.
        group: whether there are more than two authors.
    """
    for window in _windows(messages, settings.gap_hours * 3600):
        if not any(said.mine for said in window):
            tally.count(ONE_SIDED)
            continue
        named = settings.names and group
        turns = (
            Message(
                "assistant" if mine else "user",
                "\n".join(f"{s.author}: {s.text}" if named and not mine else s.text for s in said),
            )
            for mine, said in groupby(window, key=lambda said: said.mine)
        )
        yield Document(messages=tuple(turns), source=window[0].source)


def check_author(authors: Counter[str], me: str, name: str) -> None:
    """Check that I am among those who wrote.

    Raises:
        DocumentError: I am not; the message has the others, the most frequent first.
    """
    if authors[me]:
        return
    shown = [f"{author} ({count:,})" for author, count in authors.most_common(_MOST_AUTHORS)]
    more = len(authors) - len(shown)
    told = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
    raise DocumentError(
        f"{name}: '{me}' wrote nothing here. Set `me` to one of: {told or 'nobody'}"
    )


def _windows(messages: Iterable[Said], gap_seconds: float) -> Iterator[list[Said]]:
    window: list[Said] = []
    for said in messages:
        if window and said.seconds - window[-1].seconds > gap_seconds:
            yield window
            window = []
        window.append(said)
    if window:
        yield window
