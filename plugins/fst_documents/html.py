"""The reader `html`: a document a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from fst_core import Document
from fst_core.reading.chunks import chunks
from fst_core.reading.reader import TextFileReader
from fst_documents.damage import reading
from fst_documents.markup import declared_encoding, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally

__all__ = ["HtmlReader"]

_HEAD: Final = 4096
"""Bytes in which a page says its encoding."""


class HtmlReader(TextFileReader):
    """Reads what a page shows: a block a line, cells apart by tabs, without scripts, styles, navigation."""

    suffixes: ClassVar = (".html", ".htm", ".xhtml")

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the page's text."""
        page = "".join(self.pieces(name, path, tally))
        with reading(name, "an HTML page"):
            text = text_of(page, name)
        yield Document(text=text, source=f"{name}:1")

    def guess(self, name: str, path: Path) -> str:
        """Return the encoding that a page says it has; else what it most likely is."""
        head = next(chunks(path, name, _HEAD), b"")
        return declared_encoding(head) or super().guess(name, path)
