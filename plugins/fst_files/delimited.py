"""The reader `delimited`: files that hold many documents, each ended by a line of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Document
from fst_files.lines import stripped, whole_lines
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
        number = first = 1  # the numbers of the line that comes next, and of the document's first
        parts: list[str] = []  # of the document: its lines in each block, each with its end
        for lines in whole_lines(path, name, self.chunk_bytes):
            block = stripped(lines) if self.settings.strip_lines else lines
            start = 0
            for begin, end in self._ends(block):
                number += block.count("\n", start, end)
                parts.append(block[start:begin])
                yield Document(text=_joined(parts), source=f"{name}:{first}")
                start, first = end, number
            number += block.count("\n", start)
            if start < len(block):
                parts.append(block[start:])
        if parts:
            yield Document(text=_joined(parts), source=f"{name}:{first}")

    def _ends(self, block: str) -> Iterator[tuple[int, int]]:
        """Yield where each line that ends a document begins, and where the line after it does."""
        mark = self.settings.end_of_document
        at = block.find(mark)
        while 0 <= at < len(block):
            begin = block.rfind("\n", 0, at) + 1
            end = block.index("\n", at) + 1
            if block[begin:end].strip() == mark:
                yield begin, end
            at = block.find(mark, end)


def _joined(parts: list[str]) -> str:
    """Join lines, without the end of the last one, and forget them: a document may be most of the memory."""
    if not parts[-1]:
        parts.pop()
    if parts:
        parts[-1] = parts[-1][:-1]
    text = "".join(parts)
    parts.clear()
    return text
