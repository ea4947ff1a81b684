"""The reader `telegram`: the `result.json` that Telegram Desktop exports, of one chat or of all."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fst_core.errors import DocumentError
from fst_core.reading.reader import TextFileReader
from fst_core.reading.text import whole
from fst_documents.conversation import (
    FORWARDED,
    SERVICE,
    WITHOUT_TEXT,
    Said,
    check_author,
    conversations,
)
from fst_documents.json_stream import JsonStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core import Document
    from fst_core.reading.tally import Tally
    from fst_documents.settings import TelegramSettings

__all__ = ["TelegramReader"]

_GROUPS: Final = ("group", "channel")
"""What the types of chats of many people have in their names."""


class TelegramReader(TextFileReader):
    """Reads chats message by message; what was forwarded, and what nobody wrote, is left out."""

    settings: TelegramSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the conversations of one export."""
        stream = JsonStream(self.pieces(name, path, tally), name)
        authors: Counter[str] = Counter()
        about: dict[str, Any] = {}
        found = False
        for key in stream.members():
            if key == "messages":
                found = True
                yield from self._chat(stream, about, name, authors, tally)
            elif key in {"chats", "left_chats"}:
                found = True
                yield from self._chats(stream, name, authors, tally)
            else:
                about[key] = stream.value()
        if not found:
            raise DocumentError(
                f"{name}: no chats here. Export them in Telegram Desktop as machine-readable JSON"
            )
        check_author(authors, self.settings.me, name)

    def _chats(
        self, stream: JsonStream, name: str, authors: Counter[str], tally: Tally
    ) -> Iterator[Document]:
        for key in stream.members():
            if key != "list":
                stream.value()
                continue
            for _ in stream.elements():
                about: dict[str, Any] = {}
                for field in stream.members():
                    if field == "messages":
                        yield from self._chat(stream, about, name, authors, tally)
                    else:
                        about[field] = stream.value()

    def _chat(
        self,
        stream: JsonStream,
        about: dict[str, Any],
        name: str,
        authors: Counter[str],
        tally: Tally,
    ) -> Iterator[Document]:
        """Yield the conversations of one chat, whose name and type come before its messages."""
        group = any(word in str(about.get("type", "")) for word in _GROUPS)
        place = f"{name}: {about.get('name') or 'a chat'}"
        messages = self._messages(stream, place, authors, tally)
        return conversations(messages, self.settings, tally, group=group)

    def _messages(
        self, stream: JsonStream, place: str, authors: Counter[str], tally: Tally
    ) -> Iterator[Said]:
        me, errors = self.settings.me, self.settings.encoding_errors
        for _ in stream.elements():
            message = stream.value()
            if not isinstance(message, dict):
                raise DocumentError(f"{place}: a message that is not an object")
            if message.get("type") != "message":
                tally.count(SERVICE)
                continue
            author, author_id = _author(message)
            mine = me in {author, author_id}
            authors[me if mine else author] += 1
            where = f"{place}, message {message.get('id')}"
            text = whole(_text(message.get("text")), f"{where}: the text", errors, tally)
            if "forwarded_from" in message:
                tally.count(FORWARDED)
            elif not text:
                tally.count(WITHOUT_TEXT)
            else:
                yield Said(author, mine, _seconds(message, where), text, where)


def _author(message: dict[str, Any]) -> tuple[str, str]:
    """Return an author's name and id; deleted accounts have no name."""
    author_id = str(message.get("from_id") or "")
    name = str(message.get("from") or author_id or "Deleted Account")
    return name.encode("utf-8", "replace").decode(), author_id


def _text(value: Any) -> str:
    """Return a message's text, which is a string, or an array of strings and of styled parts."""
    parts = value if isinstance(value, list) else [value]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(text for text in texts if isinstance(text, str)).strip()


def _seconds(message: dict[str, Any], where: str) -> float:
    try:
        if "date_unixtime" in message:
            return float(message["date_unixtime"])
        return datetime.fromisoformat(message["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        raise DocumentError(f"{where}: no date") from None
