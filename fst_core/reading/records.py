"""A record with named fields, as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fst_core.documents import Document, Message
from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fst_core.reading.settings import FieldsSettings

__all__ = ["ROLES", "document_of"]

ROLES: Final = ("system", "user", "assistant")
"""Who may speak in a conversation."""


def document_of(
    record: Mapping[str, Any],
    settings: FieldsSettings,
    place: str,
    checked: Callable[[str, str], str] | None = None,
) -> Document:
    """Return the document that a record holds: a text or a conversation, and maybe a label.

    Args:
        record: values by the names of fields.
        settings: the fields to read.
        place: where the record stands, for messages.
        checked: is given each text and a description of its place, and returns it as it shall be.

    Raises:
        DocumentError: it holds neither or both, or values of other types.
    """
    text = record.get(settings.text_field) if settings.text_field else None
    messages = record.get(settings.messages_field) if settings.messages_field else None
    meta = record.get(settings.meta_field) if settings.meta_field else None
    if (text is None) == (messages is None):
        found = "neither" if text is None else "both"
        raise DocumentError(
            f"{place}: {found} of '{settings.text_field}' and '{settings.messages_field}' "
            f"among {', '.join(record) or 'no fields'}; set text_field or messages_field"
        )
    plain = checked or _unchanged
    return Document(
        text=None if text is None else _string(text, settings.text_field, place, plain),
        messages=None
        if messages is None
        else _messages(messages, settings.messages_field, place, plain),
        meta=None if meta is None else _string(meta, settings.meta_field, place, plain),
        source=place,
    )


def _unchanged(text: str, place: str) -> str:  # noqa: ARG001  # as others are called
    return text


def _messages(
    value: object, field: str, place: str, checked: Callable[[str, str], str]
) -> tuple[Message, ...]:
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise DocumentError(f"{place}: '{field}' is not an array of objects with role and content")
    return tuple(
        _message(turn, f"{field}[{index}]", place, checked) for index, turn in enumerate(value)
    )


def _message(
    turn: dict[str, Any], field: str, place: str, checked: Callable[[str, str], str]
) -> Message:
    role = turn.get("role")
    if role not in ROLES:
        raise DocumentError(f"{place}: '{field}.role' is {role!r}, not one of {', '.join(ROLES)}")
    return Message(role, _string(turn.get("content"), f"{field}.content", place, checked))


def _string(value: object, field: str, place: str, checked: Callable[[str, str], str]) -> str:
    if not isinstance(value, str):
        raise DocumentError(f"{place}: '{field}' is not a string")
    return checked(value, f"{place}: '{field}'")
