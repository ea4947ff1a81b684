"""The store: what the bot remembers, in SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import aiosqlite

from fst_core.errors import FstError, UserError, one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

__all__ = ["VERSION", "Answer", "Store"]

VERSION: Final = 1
"""Of the tables."""
_KEPT: Final = 10_000
"""How many handled updates are remembered; Telegram keeps those of a day at most."""

_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS updates (
    n INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, chat INTEGER, language TEXT,
    done INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS chats (
    id INTEGER PRIMARY KEY, conversation INTEGER NOT NULL DEFAULT 1, settings TEXT NOT NULL DEFAULT '{{}}'
);
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, chat INTEGER NOT NULL, thread INTEGER, user INTEGER NOT NULL,
    language TEXT NOT NULL, asked_by INTEGER, mode TEXT NOT NULL, conversation INTEGER NOT NULL,
    turn INTEGER NOT NULL, prompt TEXT NOT NULL, goes_on INTEGER NOT NULL, text TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL DEFAULT 'running', vote INTEGER NOT NULL DEFAULT 0, day TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS turns ON answers (chat, conversation, turn);
CREATE INDEX IF NOT EXISTS running ON answers (state) WHERE state = 'running';
CREATE TABLE IF NOT EXISTS spent (
    user INTEGER, day TEXT, tokens INTEGER NOT NULL, PRIMARY KEY (user, day)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what was asked, by whom and where, and what the model wrote."""

    id: int
    chat: int
    thread: int | None
    """The topic within the chat."""
    user: int
    language: str
    asked_by: int | None
    """The message that asked."""
    mode: str
    """"chat" or "continue"."""
    conversation: int
    turn: int
    """Its place in the conversation; an answer that was asked for again has the same."""
    prompt: str
    goes_on: bool
    """Whether it continues what the bot wrote last; where texts are continued, that is the prompt."""
    text: str = ""
    state: str = "running"
    """"running", "done", or why it ended otherwise."""
    vote: int = 0
    """1: liked, -1: disliked."""


class Store:
    """Chats, answers, updates and what users spent; every change is on disk when its method returns."""

    def __init__(self, database: aiosqlite.Connection) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Store]:
        """Open a store; make it if there is none, readable by its owner alone.

        Raises:
            UserError: the file is no such store, or cannot be written.
        """
        async with AsyncExitStack() as stack:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                connecting = aiosqlite.connect(path, isolation_level=None)
                database = await stack.enter_async_context(connecting)
                database.row_factory = sqlite3.Row
                await database.execute("PRAGMA journal_mode = WAL")
                await database.execute("PRAGMA synchronous = FULL")
                row = await (await database.execute("PRAGMA user_version")).fetchone()
                if row is None or row[0] > VERSION:
                    raise UserError(f"state {path}: written by a newer version of the bot")
                await database.executescript(_TABLES)
            except (OSError, sqlite3.Error) as error:
                raise UserError(f"state {path}: {one_line(error)}") from None
            yield cls(database)

    async def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        async with self._run(query, values) as cursor:
            return list(await cursor.fetchall())

    async def _write(self, query: str, *values: Any) -> aiosqlite.Cursor:
        async with self._run(query, values) as cursor:
            return cursor

    @asynccontextmanager
    async def _run(self, query: str, values: tuple[Any, ...]) -> AsyncIterator[aiosqlite.Cursor]:
        """Run a query; a full disk and the like end the bot, which could not keep its promises."""
        try:
            async with self._database.execute(query, values) as cursor:
                yield cursor
        except sqlite3.Error as error:
            raise FstError(f"the bot's state: {one_line(error)}") from None

    # updates

    async def take(self, update: int, chat: int | None, language: str) -> bool:
        """Note an update, of a private chat if one is given; return False if it was taken before."""
        cursor = await self._write(
            "INSERT OR IGNORE INTO updates (id, chat, language) VALUES (?, ?, ?)",
            update, chat, language,
        )  # fmt: skip
        if cursor.rowcount and cursor.lastrowid and cursor.lastrowid % 1000 == 0:
            await self._write("DELETE FROM updates WHERE n <= ?", cursor.lastrowid - _KEPT)
        return bool(cursor.rowcount)

    async def done(self, update: int) -> None:
        """Note that an update is handled, and what it asked for begun."""
        await self._write("UPDATE updates SET done = 1 WHERE id = ?", update)

    async def lost(self) -> dict[int, str]:
        """Return private chats, with their languages, whose update was taken and never handled."""
        rows = await self._rows("SELECT chat, language FROM updates WHERE NOT done AND chat")
        return {row["chat"]: row["language"] for row in rows}

    async def told(self, chat: int) -> None:
        """Note that a chat knows of its lost updates."""
        await self._write("UPDATE updates SET done = 1 WHERE chat = ?", chat)

    # chats

    async def chat(self, chat: int) -> tuple[int, dict[str, Any]]:
        """Return a chat's current conversation and its settings."""
        rows = await self._rows("SELECT conversation, settings FROM chats WHERE id = ?", chat)
        return (rows[0][0], json.loads(rows[0][1])) if rows else (1, {})

    async def set_chat(
        self, chat: int, settings: Mapping[str, Any] | None = None, *, new: bool = False
    ) -> None:
        """Set a chat's settings, begin a new conversation, or both."""
        text = None if settings is None else json.dumps(settings)
        await self._write(
            "INSERT INTO chats (id, conversation, settings) VALUES (?1, 1 + ?2, COALESCE(?3, '{}')) "
            "ON CONFLICT (id) DO UPDATE SET conversation = conversation + ?2, "
            "settings = COALESCE(?3, settings)",
            chat, int(new), text,
        )  # fmt: skip

    async def move(self, old: int, new: int) -> None:
        """Give a chat's memory to the one that it became."""
        await self._write("UPDATE OR REPLACE chats SET id = ? WHERE id = ?", new, old)
        await self._write("UPDATE answers SET chat = ? WHERE chat = ?", new, old)

    # answers

    async def begin(self, answer: Answer) -> Answer:
        """Note an answer that begins, and return it with its id; turn 0 means the next one."""
        rows = await self._rows(
            "INSERT INTO answers (chat, thread, user, language, asked_by, mode, conversation, turn, "
            "prompt, goes_on, day) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, CASE WHEN ?8 THEN ?8 ELSE "
            "(SELECT COALESCE(MAX(turn), 0) + 1 FROM answers WHERE chat = ?1 AND conversation = ?7) END, "
            "?9, ?10, ?11 RETURNING *",
            answer.chat, answer.thread, answer.user, answer.language, answer.asked_by, answer.mode,
            answer.conversation, answer.turn, answer.prompt, answer.goes_on, _today(),
        )  # fmt: skip
        return _answer(rows[0])

    async def save(self, answer: int, text: str) -> None:
        """Note what was written."""
        await self._write("UPDATE answers SET text = ? WHERE id = ?", text, answer)

    async def finish(self, answer: int, state: str) -> None:
        """Note that an answer has ended, and its reader has seen how."""
        await self._write("UPDATE answers SET state = ? WHERE id = ?", state, answer)

    async def vote(self, answer: int, vote: int) -> None:
        """Note what a reader thinks of an answer."""
        await self._write("UPDATE answers SET vote = ? WHERE id = ?", vote, answer)

    async def answer(self, chat: int, answer: int | None = None) -> Answer | None:
        """Return an answer of a chat, by default the last one of its conversation."""
        if answer is not None:
            query, values = "SELECT * FROM answers WHERE id = ? AND chat = ?", (answer, chat)
        else:
            conversation, _ = await self.chat(chat)
            query = (
                "SELECT * FROM answers WHERE chat = ? AND conversation = ? ORDER BY id DESC LIMIT 1"
            )
            values = (chat, conversation)
        rows = await self._rows(query, *values)
        return _answer(rows[0]) if rows else None

    async def turns(self, chat: int, conversation: int, before: int = 2**62) -> list[Answer]:
        """Return a conversation's answers before a turn, the last one of each turn."""
        rows = await self._rows(
            "SELECT *, MAX(id) FROM answers WHERE chat = ? AND conversation = ? AND turn < ? "
            "AND text != '' GROUP BY turn ORDER BY turn",
            chat, conversation, before,
        )  # fmt: skip
        return [_answer(row) for row in rows]

    async def interrupted(self) -> list[Answer]:
        """Return the answers that the end of the bot has cut off."""
        rows = await self._rows("SELECT * FROM answers WHERE state = 'running' ORDER BY id")
        return [_answer(row) for row in rows]

    async def interrupted_told(self, chat: int, last: int) -> None:
        """Note that a chat knows of its answers up to this one that were cut off."""
        await self._write(
            "UPDATE answers SET state = 'interrupted' WHERE state = 'running' AND chat = ? AND id <= ?",
            chat, last,
        )  # fmt: skip
        await self.told(chat)

    # what users spent

    async def spent(self, user: int) -> int:
        """Return how many tokens a user got today."""
        rows = await self._rows(
            "SELECT tokens FROM spent WHERE user = ? AND day = ?", user, _today()
        )
        return rows[0][0] if rows else 0

    async def spend(self, user: int, tokens: int) -> None:
        """Count tokens that a user got."""
        await self._write(
            "INSERT INTO spent VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens",
            user, _today(), tokens,
        )  # fmt: skip

    async def statistics(self) -> dict[str, int]:
        """Return today's users, answers and tokens, and all votes."""
        rows = await self._rows(
            "SELECT (SELECT COUNT(DISTINCT user) FROM answers WHERE day = ?1) AS users, "
            "(SELECT COUNT(*) FROM answers WHERE day = ?1) AS answers, "
            "(SELECT COALESCE(SUM(tokens), 0) FROM spent WHERE day = ?1) AS tokens, "
            "(SELECT COUNT(*) FROM answers WHERE vote > 0) AS likes, "
            "(SELECT COUNT(*) FROM answers WHERE vote < 0) AS dislikes",
            _today(),
        )
        return dict(rows[0])


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _answer(row: sqlite3.Row) -> Answer:
    fields = {name: row[name] for name in Answer.__slots__}
    return Answer(**fields | {"goes_on": bool(row["goes_on"])})
