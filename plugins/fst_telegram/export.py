"""Export: conversations as JSON lines, which the reader `jsonl` reads."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fst_core.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["liked", "lines"]


def lines(turns: Sequence[Any]) -> Iterator[str]:
    """Yield the document of a conversation, and one of each text that was continued.

    An answer that goes on from the one before is a part of it: nobody said the words between them.

    Args:
        turns: have `mode`, `prompt`, `text` and `goes_on`, in order.
    """
    said: list[dict[str, str]] = []
    for turn in turns:
        if turn.mode == "chat" and turn.goes_on and said:
            said[-1]["content"] = _joined(said[-1]["content"], turn.text)
        elif turn.mode == "chat":
            said.append({"role": "user", "content": turn.prompt})
            said.append({"role": "assistant", "content": turn.text})
    if said:
        yield json.dumps({"messages": said}, ensure_ascii=False) + "\n"
    for turn in turns:
        if turn.mode != "chat":
            yield json.dumps({"text": turn.prompt + turn.text}, ensure_ascii=False) + "\n"


def _joined(text: str, more: str) -> str:
    """Return two parts of an answer as one, with white space between them."""
    return text + more if text[-1:].isspace() or more[:1].isspace() else f"{text} {more}"


class _Row:
    """An answer as it is in the store."""

    def __init__(self, row: sqlite3.Row) -> None:
        self.mode, self.prompt, self.text = row["mode"], row["prompt"], row["text"]
        self.turn, self.vote, self.goes_on = row["turn"], row["vote"], bool(row["goes_on"])


def liked(path: Path) -> Iterator[str]:
    """Yield the liked texts, and each conversation up to the last answer in it that was liked.

    Of an answer that was asked for again, the liked one counts, else the last; disliked ones end
    a conversation.

    Raises:
        UserError: the file is no store of a bot.
    """
    query = (
        "SELECT chat, conversation, turn, mode, prompt, text, goes_on, vote FROM answers "
        "WHERE text != '' ORDER BY chat, conversation, turn, vote > 0, id"
    )
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute(query)
            for _, found in groupby(rows, key=lambda row: (row["chat"], row["conversation"])):
                yield from lines(_worth(map(_Row, found)))
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: not what a bot remembers: {one_line(error)}") from None


def _worth(rows: Iterable[_Row]) -> list[_Row]:
    """Return the turns of a conversation that are worth learning from."""
    last = list({row.turn: row for row in rows}.values())  # the last of each turn: the liked one
    texts = [row for row in last if row.mode != "chat" and row.vote > 0]
    chat = [row for row in last if row.mode == "chat"]
    bad = next((at for at, row in enumerate(chat) if row.vote < 0), len(chat))
    good = max((at + 1 for at, row in enumerate(chat[:bad]) if row.vote > 0), default=0)
    return chat[:good] + texts
