"""The reader `text`: a document a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fst_core import Document
from fst_files.lines import pieces
from fst_files.patterns import find
from fst_files.reader import FileReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core import Split
    from fst_files.settings import TextSettings

__all__ = ["TextReader"]

SUFFIXES: Final = (".txt", ".md")
"""The endings of the files that a folder stands for."""


class TextReader(FileReader):
    """Reads each file as one document, without the white space at its beginning and end."""

    def __init__(self, settings: TextSettings) -> None:
        self.settings = settings

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that the settings name."""
        return self.settings.splits

    def files(self, split: Split) -> dict[str, Path]:
        """Return the files that the settings name; hidden ones of a folder are left out."""
        return find(self.settings.patterns(split), SUFFIXES)

    def documents(self, name: str, path: Path) -> Iterator[Document]:
        """Yield the file's text."""
        text = "".join(pieces(path, name, self.chunk_bytes))
        yield Document(text=text.strip(), source=f"{name}:1")
