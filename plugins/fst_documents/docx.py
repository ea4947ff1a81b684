"""The reader `docx`: documents in Office Open XML (ECMA-376)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from fst_core import Document
from fst_core.reading.reader import FileReader
from fst_documents.archive import Archive
from fst_documents.damage import reading
from fst_documents.paragraphs import Paragraphs
from fst_documents.xml import local, parse, walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally
    from fst_documents.settings import DocxSettings

__all__ = ["DocxReader"]

_SKIPPED: Final = {"del", "moveFrom", "Fallback"}
"""What was deleted or moved away, and what stands in for newer parts of a document."""
_CHARACTERS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


class DocxReader(FileReader):
    """Reads the paragraphs and tables of a document's body, changes accepted.

    Headers, footers, notes and comments are parts of their own, and are not read.
    """

    suffixes: ClassVar = (".docx",)
    settings: DocxSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:  # noqa: ARG002  # an interface
        """Yield the file's text, a paragraph a line."""
        with (
            reading(name, "a .docx document"),
            Archive(path, name, self.settings.max_unpacked_bytes) as archive,
        ):
            text = _text(parse(archive.read(_body(archive, name)), name))
        yield Document(text=text, source=name)


def _body(archive: Archive, name: str) -> str:
    """Return the name of the archive's part that holds the text."""
    for relation in parse(archive.read("_rels/.rels"), name):
        if relation.get("Type", "").endswith("/officeDocument"):
            return str(relation.get("Target", "")).lstrip("/")
    return "word/document.xml"


def _text(root: Any) -> str:
    paragraphs = Paragraphs()
    walker = walk(root)
    for event, element in walker:
        tag = local(element)
        if tag in _SKIPPED:
            if event == "start":
                walker.skip_subtree()
        elif tag == "p":
            paragraphs.begin() if event == "start" else paragraphs.end()
        elif tag in {"tr", "tc"}:
            if event == "start":
                paragraphs.begin_block()
            else:
                paragraphs.end_block("\t" if tag == "tr" else " ")
        elif event == "start":
            paragraphs.write(element.text if tag == "t" else _CHARACTERS.get(tag))
    return paragraphs.text()
