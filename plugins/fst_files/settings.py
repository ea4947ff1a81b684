"""What a pipeline may write in `[documents]` for each reader."""

from __future__ import annotations

import re  # noqa: TC003  # pydantic reads the annotations of fields

from pydantic import Field, field_validator

from fst_core import Settings
from fst_core.reading.settings import FieldsSettings, SomePatterns, TextFilesSettings

__all__ = ["DelimitedSettings", "JsonlSettings", "PackageSettings", "TextSettings"]


class DelimitedSettings(TextFilesSettings):
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


class TextSettings(TextFilesSettings):
    """Settings of the reader `text`; a folder means its .txt and .md files, at any depth."""


class JsonlSettings(FieldsSettings, TextFilesSettings):
    """Settings of the reader `jsonl`; a field name of "" means that no such field is read."""


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
