"""The reader `epub`: electronic books in EPUB 2 and 3."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import unquote

from fst_core import Document
from fst_core.errors import DocumentError
from fst_core.reading.reader import FileReader
from fst_documents.archive import Archive
from fst_documents.damage import reading
from fst_documents.markup import declared_encoding, text_of
from fst_documents.xml import local, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.reading.tally import Tally
    from fst_documents.settings import EpubSettings

__all__ = ["EpubReader"]

_CONTAINER: Final = "META-INF/container.xml"
_ENCRYPTION: Final = "META-INF/encryption.xml"
_PAGES: Final = {"application/xhtml+xml", "text/html"}


class EpubReader(FileReader):
    """Reads a book's files in the order of its spine, without the table of contents."""

    suffixes: ClassVar = (".epub",)
    settings: EpubSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:  # noqa: ARG002  # an interface
        """Yield the book's text, or that of each of its files."""
        with (
            reading(name, "an .epub book"),
            Archive(path, name, self.settings.max_unpacked_bytes) as archive,
        ):
            texts = {
                part: _text(archive.read(part), f"{name}: {part}") for part in _spine(archive, name)
            }
        if self.settings.chapters:
            for part, text in texts.items():
                yield Document(text=text, source=f"{name}: {part}")
        else:
            yield Document(text="\n\n".join(filter(None, texts.values())), source=name)


def _spine(archive: Archive, name: str) -> list[str]:
    """Return the archive's parts that hold the book's text, in the order of reading.

    Raises:
        DocumentError: the book is protected, or damaged.
    """
    container = parse(archive.read(_CONTAINER), name)
    packages = [e.get("full-path", "") for e in container.iter() if local(e) == "rootfile"]
    if not packages:
        raise DocumentError(f"{name}: damaged: '{_CONTAINER}' names no package")
    package = parse(archive.read(packages[0]), name)
    items = {e.get("id"): e for e in package.iter() if local(e) == "item"}
    read = [items.get(e.get("idref")) for e in package.iter() if local(e) == "itemref"]
    parts = [_place(item, packages[0]) for item in read if item is not None and _is_page(item)]
    if not parts:
        raise DocumentError(f"{name}: damaged: it has no text in the order of reading")
    if protected := _encrypted(archive, name) & set(parts):
        raise DocumentError(f"{name}: protected against copying: '{min(protected)}' is encrypted")
    return parts


def _is_page(item: Any) -> bool:
    is_contents = "nav" in item.get("properties", "").split()
    return item.get("media-type") in _PAGES and not is_contents


def _place(item: Any, package: str) -> str:
    """Return the name of a part, which the package names relative to itself."""
    link = unquote(item.get("href", "").partition("#")[0])
    return posixpath.normpath(posixpath.join(posixpath.dirname(package), link))


def _encrypted(archive: Archive, name: str) -> set[str]:
    if _ENCRYPTION not in archive.names:
        return set()
    said = parse(archive.read(_ENCRYPTION), name)
    return {unquote(e.get("URI", "")) for e in said.iter() if local(e) == "CipherReference"}


def _text(data: bytes, name: str) -> str:
    page = data.decode(declared_encoding(data) or "utf-8")
    return text_of(page.removeprefix("\ufeff").replace("\r\n", "\n"), name)
