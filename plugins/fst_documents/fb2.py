"""The reader `fb2`: books in FictionBook 2."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fst_core import Document
from fst_core.errors import DocumentError
from fst_core.reading.reader import FileReader
from fst_documents.archive import Archive
from fst_documents.damage import reading
from fst_documents.paragraphs import collapsed, joined
from fst_documents.xml import local, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally
    from fst_documents.settings import Fb2Settings

__all__ = ["Fb2Reader"]

_PARAGRAPHS: Final = {"p", "v", "subtitle", "text-author", "td", "th"}
_PICTURES: Final = re.compile(rb"<binary\b.*?</binary\s*>", re.DOTALL)


class Fb2Reader(FileReader):
    """Reads the main text of a book: notes, which are a body of their own, are left out."""

    suffixes: ClassVar = (".fb2", ".fb2.zip")
    settings: Fb2Settings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:  # noqa: ARG002  # an interface
        """Yield the book's text, a paragraph a line."""
        with reading(name, "an .fb2 book"):
            root = parse(_PICTURES.sub(b"", self._data(name, path)), name)
            if local(root) != "FictionBook":
                raise DocumentError(f"{name}: not an .fb2 book: its root is '{local(root)}'")
            lines = [line for body in root if _is_text(body) for line in _lines(body)]
        yield Document(text=joined(lines), source=name)

    def _data(self, name: str, path: Path) -> bytes:
        most = self.settings.max_unpacked_bytes
        if path.suffix.lower() == ".zip":
            with Archive(path, name, most) as archive:
                books = sorted(part for part in archive.names if part.lower().endswith(".fb2"))
                if len(books) != 1:
                    raise DocumentError(f"{name}: holds {len(books)} .fb2 files, not one")
                return archive.read(books[0])
        if path.stat().st_size > most:
            raise DocumentError(
                f"{name}: larger than {most:,} bytes; raise max_unpacked_bytes if it is no trap"
            )
        return path.read_bytes()


def _is_text(body: Any) -> bool:
    return local(body) == "body" and body.get("name") not in {"notes", "comments"}


def _lines(body: Any) -> Iterator[str]:
    for element in body.iter():
        tag = local(element)
        if tag in _PARAGRAPHS:
            yield collapsed("".join(element.itertext()))
        elif tag == "empty-line" or (tag == "section" and element.getprevious() is not None):
            yield ""
