"""What the readers of this plugin share: documents come file by file; empty ones are dropped."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fst_core import Reader
from fst_core.artefacts.digests import digest_files
from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core import Document, Split

__all__ = ["FileReader"]


class FileReader(Reader):
    """Reads one file after another; a subclass says which they are and what each holds."""

    chunk_bytes: ClassVar[int] = 2**16
    """How many bytes are read at a time, few enough for the cache; the documents do not depend on it."""

    _dropped = 0

    @abstractmethod
    def files(self, split: Split) -> dict[str, Path]:
        """Return the files of a split in order, by the names that messages show."""

    @abstractmethod
    def documents(self, name: str, path: Path) -> Iterator[Document]:
        """Yield the documents of one file, empty ones too."""

    def read(self, split: Split) -> Iterator[Document]:
        """Yield the documents of a split's files; those of nothing but white space are dropped."""
        dropped = 0
        try:
            for name, path in self.files(split).items():
                for document in self.documents(name, path):
                    if _empty(document):
                        dropped += 1
                    else:
                        yield document
        except OSError as error:
            raise DocumentError(f"{error.filename}: {error.strerror}") from None
        self._dropped = dropped

    def size(self, split: Split) -> int:
        """Return the bytes of a split's files."""
        return sum(path.stat().st_size for path in self.files(split).values())

    def fingerprint(self, split: Split) -> str:
        """Return the sha256 over the contents of a split's files, in order; names do not count."""
        try:
            return digest_files(self.files(split).values())
        except OSError as error:
            raise DocumentError(f"{error.filename}: {error.strerror}") from None

    def dropped(self) -> int:
        """Return how many empty documents the last complete `read` dropped."""
        return self._dropped


def _empty(document: Document) -> bool:
    if document.text is not None:
        return not document.text or document.text.isspace()
    return not any(message.content.strip() for message in document.messages or ())
