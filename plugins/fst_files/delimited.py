"""The reader `delimited`: files that hold many documents, each ended by a line of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fst_core import Document
from fst_core.reading.reader import TextFileReader
from fst_files.lines import line_ends, stripped, whole_lines

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
        strip = self.settings.strip_lines
        number = first = 1  # the numbers of the line that comes next, and of the document's first
        begun = bytearray()  # what of the document stands before the block
        for lines in whole_lines(self.utf8(name, path, tally)):
            block, ends = stripped(lines) if strip else (lines, line_ends(lines))
            view = memoryview(block)
            start = 1  # behind the line end that the block begins with
            for begin, end in self._marks(block):
                number += int(np.count_nonzero(ends[start:end]))
                yield Document(text=_text(begun, view[start:begin]), source=f"{name}:{first}")
                start, first = end, number
            begun += view[start:]
            number += int(np.count_nonzero(ends[start:]))
        if begun:
            yield Document(text=_text(begun, b""), source=f"{name}:{first}")

    def _marks(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Yield where each line that ends a document begins, and where the line after it does."""
        mark = self.settings.end_of_document
        utf8 = mark.encode()
        at = block.find(utf8, 1)
        while 0 <= at < len(block):
            begin = block.rfind(b"\n", 0, at) + 1
            end = block.index(b"\n", at) + 1
            if end - begin - 1 == len(utf8) or block[begin:end].decode().strip() == mark:
                yield begin, end
            at = block.find(utf8, end)


def _text(begun: bytearray, rest: memoryview | bytes) -> str:
    """Return the text of lines, without the end of the last one.

    What is `begun` may be most of the memory, and is forgotten.
    """
    if not begun:
        return str(rest[:-1], "utf-8")
    begun += rest
    del begun[-1:]
    text = begun.decode()
    begun.clear()
    return text
