"""The settings that readers of files share."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from fst_core.settings import Settings

if TYPE_CHECKING:
    from fst_core.documents import Split

__all__ = [
    "AUTO",
    "EncodingErrors",
    "FieldsSettings",
    "FilesSettings",
    "Patterns",
    "SomePatterns",
    "TextFilesSettings",
    "is_encoding",
]

AUTO: Final = "auto"
"""The encoding that is chosen for each file."""

EncodingErrors = Literal["strict", "replace", "skip"]

_NO_TEXT: Final = ("unicode-escape", "raw-unicode-escape", "utf-7", "idna", "punycode", "undefined")
"""Codecs of Python that are not encodings of files, or may decode to half a character."""


def _listed(value: object) -> object:
    """Let a single string stand for an array of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


_WRITTEN = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}

Patterns = Annotated[tuple[str, ...], BeforeValidator(_listed), WithJsonSchema(_WRITTEN)]
"""Paths or glob patterns, any number of them."""
SomePatterns = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(_listed), WithJsonSchema(_WRITTEN)
]
"""Paths or glob patterns, at least one."""


class FilesSettings(Settings):
    """The files of the two splits."""

    train: SomePatterns
    """Files to train on: paths or glob patterns (`**` crosses folders); none is read twice."""
    valid: Patterns = ()
    """Files to validate on; without any, a share of the training documents is held out."""
    on_error: Literal["stop", "skip"] = "stop"
    """Whether a file that cannot be read stops the work, or is left out, told and counted."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that these settings name."""
        return ("train", "valid") if self.valid else ("train",)

    def patterns(self, split: Split) -> tuple[str, ...]:
        """Return the paths and patterns of a split."""
        return self.train if split == "train" else self.valid


class TextFilesSettings(FilesSettings):
    """Files of plain text, and how their bytes become characters."""

    encoding: str = "utf-8"
    """The files' encoding, such as "cp1251"; "auto" chooses one for each file."""
    encoding_errors: EncodingErrors = "strict"
    """Whether bytes that are no text stop the work, become U+FFFD, or are left out; they are counted."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        if value != AUTO and not is_encoding(value):
            raise ValueError('not an encoding; such as "utf-8", "cp1251", "utf-16", or "auto"')
        return value


class FieldsSettings(Settings):
    """Where a record has its text; a name of "" means that no such field is read."""

    text_field: str = "text"
    """The field that holds a document's text."""
    messages_field: str = "messages"
    """The field that holds a conversation: an array of objects with `role` and `content`."""
    meta_field: str = "meta"
    """The field that holds a document's label; it may be absent."""


def is_encoding(name: str) -> bool:
    """Return whether Python knows an encoding of that name, and files have it."""
    try:
        io.TextIOWrapper(io.BytesIO(), name)  # codecs such as "hex" are not for text
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        return False
    return found.replace("_", "-") not in _NO_TEXT
