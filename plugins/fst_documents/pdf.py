"""The reader `pdf`: the text that stands on the pages of PDF files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from pypdf import PdfReader as Pages
from pypdf.errors import DependencyError

from fst_core import Document
from fst_core.errors import DocumentError
from fst_core.reading.reader import FileReader
from fst_core.reading.text import paired
from fst_documents.damage import reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally

__all__ = ["PdfReader"]

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # small defects of files, line after line


class PdfReader(FileReader):
    """Reads pages one after another; hyphens, headers and footers are left as they are.

    Pages without text, such as scanned ones, are counted.
    """

    suffixes: ClassVar = (".pdf",)

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the file's text, its pages joined with line ends."""
        with reading(name, "a PDF file"), path.open("rb") as file:
            pages = Pages(file)
            if pages.is_encrypted:
                _decrypt(pages, name)
            texts = [page.extract_text().strip() for page in pages.pages]
        tally.count("pages without text", texts.count(""))
        # Fonts may map to halves of surrogate pairs.
        yield Document(text=paired("\n".join(filter(None, texts))), source=name)


def _decrypt(pages: Pages, name: str) -> None:
    """Open a file that anybody may read: one with an owner's password alone.

    Raises:
        DocumentError: it needs a password.
    """
    try:
        opened = pages.decrypt("")
    except DependencyError:
        raise DocumentError(
            f"{name}: encrypted in a way that needs cryptography: pip install cryptography"
        ) from None
    if not opened:
        raise DocumentError(f"{name}: encrypted; save it without a password")
