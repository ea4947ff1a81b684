"""The reader `delimited`: files that hold many documents, each ended by a line of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Document
from fst_core.reading.long_text import LongText
from fst_core.reading.reader import TextFileReader
from fst_files.lines import count_lines, stripped, whole_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally
    from fst_files.settings import DelimitedSettings

__all__ = ["DelimitedReader"]


class DelimitedReader(TextFileReader):
    r"""Cuts files at the lines that, stripped, equal `end_of_document`.

    A document's lines, stripped unless `strip_lines` is false, are joined with \n; what follows the
    last such line of a file is a document too.
    """

    settings: DelimitedSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the documents of one file, empty ones too."""
        number = first = 1  # the numbers of the line that comes next, and of the document's first
        long = LongText()  # of the document: what came before its parts
        parts: list[str] = []  # its lines in each block, each with its end
        for lines in whole_lines(self.pieces(name, path, tally)):
            block = stripped(lines) if self.settings.strip_lines else lines
            start = 0
            for begin, end in self._ends(block):
                parts.append(block[start:begin])
                number += count_lines(parts[-1]) + 1
                yield Document(text=_joined(long, parts), source=f"{name}:{first}")
                start, first = end, number
            if start < len(block):
                if parts:
                    long.add(parts.pop())
                parts.append(block[start:])
                number += count_lines(parts[-1])
        if parts:
            yield Document(text=_joined(long, parts), source=f"{name}:{first}")

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


def _joined(long: LongText, parts: list[str]) -> str:
    """Join lines, without the end of the last one, and forget them: a document may be most of the memory."""
    if not parts[-1]:
        parts.pop()
    if parts:
        parts[-1] = parts[-1][:-1]
    text = long.take("".join(parts))
    parts.clear()
    return text
