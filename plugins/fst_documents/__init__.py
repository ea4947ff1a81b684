"""Readers of documents: Parquet, HTML, PDF, DOCX, EPUB, FB2, RTF, ODT, chats, and folders of mixed kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

_OFFERS: Final = (
    ("parquet", "Parquet files: a text or a conversation a row.", "pyarrow", (".parquet",)),
    ("html", "HTML files, without scripts, styles and navigation.", "lxml", (".html", ".htm", ".xhtml")),
    ("pdf", "PDF files that hold text, as it stands on their pages.", "pypdf", (".pdf",)),
    ("docx", "Documents of Word and other word processors.", "lxml", (".docx",)),
    ("odt", "Documents of LibreOffice and other word processors.", "lxml", (".odt",)),
    ("rtf", "Documents in the rich text format.", "striprtf", (".rtf",)),
    ("epub", "Electronic books in EPUB, whole or chapter by chapter.", "lxml", (".epub",)),
    ("fb2", "Electronic books in FictionBook.", "lxml", (".fb2", ".fb2.zip")),
    ("folder", "Files of mixed kinds, each read by the reader of its suffix.", "", ()),
    ("telegram", "Chats that Telegram Desktop exported as JSON.", "", ()),
    ("whatsapp", "Chats that WhatsApp exported as text.", "", ()),
)  # fmt: skip  # a table


@hookimpl
def fst_readers() -> Iterator[Component]:
    """Offer the readers."""
    for name, summary, needs, suffixes in _OFFERS:
        yield Component(
            name,
            f"{__name__}.{name}:{name.capitalize()}Reader",
            summary,
            settings=f"{__name__}.settings:{name.capitalize()}Settings",
            needs=(needs,) if needs else (),
            suffixes=suffixes,
        )
