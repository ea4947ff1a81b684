"""The reader `jsonl`: a JSON object a line, with a text or a conversation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fst_core import Document, Message
from fst_core.errors import DocumentError
from fst_files.lines import blocks
from fst_files.patterns import find
from fst_files.reader import FileReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core import Split
    from fst_files.settings import JsonlSettings

__all__ = ["JsonlReader"]

ROLES: Final = ("system", "user", "assistant")
"""Who may speak in a conversation."""


class JsonlReader(FileReader):
    """Reads JSON lines (jsonlines.org); blank lines and fields that are not named are skipped."""

    def __init__(self, settings: JsonlSettings) -> None:
        self.settings = settings

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that the settings name."""
        return self.settings.splits

    def files(self, split: Split) -> dict[str, Path]:
        """Return the files that the settings name."""
        return find(self.settings.patterns(split))

    def documents(self, name: str, path: Path) -> Iterator[Document]:
        """Yield a document for each line, empty ones too."""
        before = 1  # the number of the block's first line
        for lines in blocks(path, name, self.chunk_bytes):
            for number, line in enumerate(lines, before):
                if line and not line.isspace():
                    yield self._document(line, f"{name}:{number}")
            before += len(lines)

    def _document(self, line: str, place: str) -> Document:
        settings = self.settings
        record = _parse(line, place)
        text = record.get(settings.text_field) if settings.text_field else None
        messages = record.get(settings.messages_field) if settings.messages_field else None
        meta = record.get(settings.meta_field) if settings.meta_field else None
        if (text is None) == (messages is None):
            found = "neither" if text is None else "both"
            raise DocumentError(
                f"{place}: {found} of '{settings.text_field}' and '{settings.messages_field}' "
                f"among {', '.join(record) or 'no fields'}; set text_field or messages_field"
            )
        return Document(
            text=None if text is None else _string(text, settings.text_field, place),
            messages=None
            if messages is None
            else _messages(messages, settings.messages_field, place),
            meta=None if meta is None else _string(meta, settings.meta_field, place),
            source=place,
        )


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DocumentError(f"{place}: not JSON at column {error.colno}: {error.msg}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of thousands of digits, a thousand brackets
        raise DocumentError(f"{place}: cannot be read: {error}") from None
    if not isinstance(record, dict):
        raise DocumentError(f"{place}: not a JSON object")
    return record


def _messages(value: object, field: str, place: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise DocumentError(f"{place}: '{field}' is not an array of objects with role and content")
    return tuple(_message(turn, f"{field}[{index}]", place) for index, turn in enumerate(value))


def _message(turn: dict[str, Any], field: str, place: str) -> Message:
    role = turn.get("role")
    if role not in ROLES:
        raise DocumentError(f"{place}: '{field}.role' is {role!r}, not one of {', '.join(ROLES)}")
    return Message(role, _string(turn.get("content"), f"{field}.content", place))


def _string(value: object, field: str, place: str) -> str:
    if not isinstance(value, str):
        raise DocumentError(f"{place}: '{field}' is not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair; no text has one
        half = f"\\u{ord(value[error.start]):04x}"
        raise DocumentError(f"{place}: '{field}' holds {half}, half a character") from None
    return value
