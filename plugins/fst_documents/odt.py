"""The reader `odt`: texts in OpenDocument (ISO/IEC 26300)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from fst_core import Document
from fst_core.errors import DocumentError
from fst_core.reading.reader import FileReader
from fst_documents.archive import Archive
from fst_documents.damage import reading
from fst_documents.paragraphs import Paragraphs, collapsed
from fst_documents.xml import local, parse, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally
    from fst_documents.settings import OdtSettings

__all__ = ["OdtReader"]

_SKIPPED: Final = {"tracked-changes", "annotation", "note", "desc", "title", "forms"}
"""What was deleted, what is said beside the text, and descriptions of pictures."""
_CHARACTERS: Final = {"tab": "\t", "line-break": "\n"}
_TEXT: Final = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_MOST_SPACES: Final = 100
"""Spaces that one element may stand for."""


class OdtReader(FileReader):
    """Reads the paragraphs, headings, lists and tables of a text; notes and comments are left out."""

    suffixes: ClassVar = (".odt",)
    settings: OdtSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:  # noqa: ARG002  # an interface
        """Yield the file's text, a paragraph a line."""
        with (
            reading(name, "an .odt document"),
            Archive(path, name, self.settings.max_unpacked_bytes) as archive,
        ):
            if "META-INF/manifest.xml" in archive.names:
                manifest = parse(archive.read("META-INF/manifest.xml"), name)
                if any(local(element) == "encryption-data" for element in manifest.iter()):
                    raise DocumentError(f"{name}: encrypted; save it without a password")
            text = _text(parse(archive.read("content.xml"), name))
        yield Document(text=text, source=name)


def _text(root: Any) -> str:
    paragraphs = Paragraphs()
    walker = walk(root)
    for event, element in walker:
        tag = local(element)
        begins = event == "start"
        if tag in _SKIPPED:
            if begins:
                walker.skip_subtree()
        elif tag in {"p", "h"}:
            paragraphs.begin() if begins else paragraphs.end()
        elif tag in {"table-row", "table-cell"}:
            if begins:
                paragraphs.begin_block()
            else:
                paragraphs.end_block("\t" if tag == "table-row" else " ")
        elif begins and tag == "s":
            paragraphs.write(" " * min(int(element.get(f"{_TEXT}c", "1")), _MOST_SPACES))
        elif begins:
            paragraphs.write(_CHARACTERS.get(tag))
        if tag not in _SKIPPED and begins:
            paragraphs.write(collapsed(element.text or ""))
        elif not begins:
            paragraphs.write(collapsed(element.tail or ""))
    return paragraphs.text()
