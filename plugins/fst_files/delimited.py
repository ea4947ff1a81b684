"""The reader `delimited`: files that hold many documents, each ended by a line of its own."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fst_core import Document
from fst_files.lines import blocks
from fst_files.patterns import find
from fst_files.reader import FileReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core import Split
    from fst_files.settings import DelimitedSettings

__all__ = ["DelimitedReader"]


class DelimitedReader(FileReader):
    r"""Cuts files at the lines that, stripped, equal `end_of_document`.

    A document's lines, stripped unless `strip_lines` is false, are joined with \n; what follows the
    last such line of a file is a document too.
    """

    def __init__(self, settings: DelimitedSettings) -> None:
        self.settings = settings

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that the settings name."""
        return self.settings.splits

    def files(self, split: Split) -> dict[str, Path]:
        """Return the files that the settings name."""
        return find(self.settings.patterns(split))

    def documents(self, name: str, path: Path) -> Iterator[Document]:
        """Yield the documents of one file, empty ones too."""
        end = self.settings.end_of_document
        first = before = 1  # the numbers of the document's first line, and of the block's
        parts: list[str] = []  # of the document: its lines in each block, joined
        for lines in blocks(path, name, self.chunk_bytes):
            stripped = list(map(str.strip, lines))
            kept = stripped if self.settings.strip_lines else lines
            start = 0
            for at in _places(stripped, end):
                if at > start:
                    parts.append("\n".join(kept[start:at]))
                yield Document(text="\n".join(parts), source=f"{name}:{first}")
                parts = []
                start = at + 1
                first = before + start
            if start < len(lines):
                parts.append("\n".join(kept[start:]))
            before += len(lines)
        if parts:
            yield Document(text="\n".join(parts), source=f"{name}:{first}")


def _places(lines: list[str], line: str) -> Iterator[int]:
    """Yield each index at which `line` stands."""
    at = -1
    with suppress(ValueError):  # it stands nowhere after `at`
        while True:
            at = lines.index(line, at + 1)
            yield at
