"""The reader `rtf`: documents in the rich text format."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar, Final

from striprtf.striprtf import rtf_to_text

from fst_core import Document
from fst_core.errors import DocumentError
from fst_core.reading.reader import FileReader
from fst_core.reading.text import paired
from fst_documents.damage import reading
from fst_documents.paragraphs import joined

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally

__all__ = ["RtfReader"]

_CODE_PAGE: Final = re.compile(rb"\\ansicpg(\d{3,5})")
_BRACES: Final = re.compile(rb"\\[{}\\]|[{}]")


class RtfReader(FileReader):
    """Reads the text of a document; pictures, headers and footers are left out."""

    suffixes: ClassVar = (".rtf",)

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:  # noqa: ARG002  # an interface
        """Yield the file's text, a paragraph a line."""
        data = path.read_bytes()
        if not data.lstrip().startswith(b"{\\rtf"):
            raise DocumentError(f"{name}: not in the rich text format")
        if _depth(data):
            raise DocumentError(f"{name}: damaged: a group does not end, or ends twice")
        page = _CODE_PAGE.search(data)
        encoding = f"cp{page[1].decode()}" if page else "cp1252"
        with reading(name, "an .rtf document"):
            text = str(rtf_to_text(data.decode(encoding), encoding))  # type: ignore[no-untyped-call]  # it has no types
        # Characters beyond the first 65,536 are written as surrogate pairs.
        yield Document(text=joined(paired(text).split("\n")), source=name)


def _depth(data: bytes) -> int:
    """Return how many groups begin and do not end."""
    braces = [match[0] for match in _BRACES.finditer(data)]
    return braces.count(b"{") - braces.count(b"}")
