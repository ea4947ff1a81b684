"""What a pipeline may write in `[documents]` for each reader."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from fst_core.reading.settings import AUTO, FieldsSettings, FilesSettings, TextFilesSettings

__all__ = [
    "ChatSettings",
    "DocxSettings",
    "EpubSettings",
    "Fb2Settings",
    "FolderSettings",
    "HtmlSettings",
    "OdtSettings",
    "ParquetSettings",
    "PdfSettings",
    "RtfSettings",
    "TelegramSettings",
    "UnpackedSettings",
    "WhatsappSettings",
]


class ParquetSettings(FieldsSettings, FilesSettings):
    """Settings of the reader `parquet`, whose fields are columns; "" means that none is read."""


class HtmlSettings(TextFilesSettings):
    """Settings of the reader `html`."""

    encoding: str = AUTO
    """The files' encoding; "auto" believes what a file says, and guesses where it says nothing."""


class PdfSettings(FilesSettings):
    """Settings of the reader `pdf`."""


class RtfSettings(FilesSettings):
    """Settings of the reader `rtf`."""


class UnpackedSettings(FilesSettings):
    """Files that unpack to larger ones, or are parsed as a whole."""

    max_unpacked_bytes: int = Field(default=2**26, ge=1)
    """A file is refused where the parts of it that are read are larger; it bounds the memory."""


class DocxSettings(UnpackedSettings):
    """Settings of the reader `docx`."""


class OdtSettings(UnpackedSettings):
    """Settings of the reader `odt`."""


class Fb2Settings(UnpackedSettings):
    """Settings of the reader `fb2`."""


class EpubSettings(UnpackedSettings):
    """Settings of the reader `epub`."""

    chapters: bool = False
    """Whether each file of a book's reading order is a document, instead of the whole book."""


class FolderSettings(TextFilesSettings):
    """Settings of the reader `folder`; what is written for all files holds for those that know it."""

    suffixes: dict[str, str] = Field(default_factory=dict)
    """The reader of files whose names end so, such as `".rst" = "text"`; it goes before any other."""
    readers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further settings of single readers, by their names."""


class ChatSettings(TextFilesSettings):
    """Settings of the readers of chats."""

    me: str = Field(min_length=1)
    """The author whose messages become `assistant`; those of all others become `user`."""
    gap_hours: float = Field(default=3.0, gt=0)
    """A silence of more hours than this ends a conversation, and the next message begins another."""
    names: bool = False
    """Whether in groups the messages of others begin with their author's name and a colon."""


class TelegramSettings(ChatSettings):
    """Settings of the reader `telegram`; `me` is a name, or an id such as "user123456789"."""


class WhatsappSettings(ChatSettings):
    """Settings of the reader `whatsapp`."""

    dates: Literal["auto", "day", "month", "year"] = "auto"
    """Which number of a date comes first; "auto" finds out from all dates of a file."""
