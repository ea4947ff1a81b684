"""What a pipeline may write in `[documents]` for each reader."""

from __future__ import annotations

import re  # noqa: TC003  # pydantic reads the annotations of fields
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from fst_core import Settings

if TYPE_CHECKING:
    from fst_core import Split

__all__ = ["DelimitedSettings", "FilesSettings", "JsonlSettings", "PackageSettings", "TextSettings"]


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

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that these settings name."""
        return ("train", "valid") if self.valid else ("train",)

    def patterns(self, split: Split) -> tuple[str, ...]:
        """Return the paths and patterns of a split."""
        return self.train if split == "train" else self.valid


class DelimitedSettings(FilesSettings):
    """Settings of the reader `delimited`."""

    end_of_document: str = "[END_OF_DOCUMENT]"
    """The line that ends a document; "" lets every blank line end one."""
    strip_lines: bool = True
    """Whether white space at both ends of every line is removed; false keeps indentation."""

    @field_validator("end_of_document")
    @classmethod
    def _can_match(cls, value: str) -> str:
        if value != value.strip() or "\n" in value or "\r" in value:
            raise ValueError(
                "would match no line: lines are compared without white space around them"
            )
        return value


class TextSettings(FilesSettings):
    """Settings of the reader `text`; a folder means its .txt and .md files, at any depth."""


class JsonlSettings(FilesSettings):
    """Settings of the reader `jsonl`; a field name of "" means that no such field is read."""

    text_field: str = "text"
    """The field that holds a document's text."""
    messages_field: str = "messages"
    """The field that holds a conversation: an array of objects with `role` and `content`."""
    meta_field: str = "meta"
    """The field that holds a document's label; it may be absent."""


class PackageSettings(Settings):
    """Settings of the reader `package`."""

    distribution: str = Field(min_length=1)
    """The distribution's name, as pip installs it."""
    files: SomePatterns
    """Glob patterns of its files, matched from the right: `*.md` is any Markdown file it ships."""
    split_at: re.Pattern[str] | None = None
    """A regular expression: a line that it matches at its start begins a document.

    Matching lines with nothing between them, such as two headings, begin one document together.
    """
    remove: tuple[re.Pattern[str], ...] = ()
    """Regular expressions whose matches are removed, in order; `^` and `$` match at every line."""
    strip_lines: bool = True
    """Whether white space at both ends of every line is removed; false keeps indentation."""
