"""The reader `text`: a document a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from fst_core import Document
from fst_core.reading.reader import TextFileReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally

__all__ = ["TextReader"]


class TextReader(TextFileReader):
    """Reads each file as one document, without the white space at its beginning and end."""

    suffixes: ClassVar = (".txt", ".txt.gz", ".txt.zst", ".md", ".md.gz", ".md.zst")

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the file's text."""
        utf8 = bytearray()
        for piece in self.utf8(name, path, tally):
            utf8 += piece
        text = utf8.decode()
        del utf8  # it may be most of the memory
        yield Document(text=text.strip(), source=f"{name}:1")
