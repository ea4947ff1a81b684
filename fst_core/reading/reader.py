"""Readers of files: documents come file by file, and what is left out is counted."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fst_core.artefacts.digests import digest_fields, digest_file
from fst_core.documents import EMPTY, ReadReport
from fst_core.errors import DocumentError
from fst_core.interfaces.reader import Reader
from fst_core.reading.chunks import unpacked_size
from fst_core.reading.guess import check_guessing, guess
from fst_core.reading.patterns import find
from fst_core.reading.settings import AUTO
from fst_core.reading.tally import Tally
from fst_core.reading.text import utf8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fst_core.documents import Document, Split
    from fst_core.reading.settings import FilesSettings, TextFilesSettings

__all__ = ["BROKEN", "FileReader", "TextFileReader"]

BROKEN = "broken files"
"""The reason under which files that cannot be read are counted."""


class FileReader(Reader):
    """Reads one file after another; a subclass says what each holds, and which `suffixes` they have."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """The lower-case endings of the files that a folder stands for; without any it is an error."""

    stops: bool = True
    """Whether a file that cannot be read stops the work."""

    settings: FilesSettings
    _report = ReadReport()

    def __init__(self, settings: FilesSettings) -> None:
        self.settings = settings
        self.stops = settings.on_error == "stop"

    @abstractmethod
    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the documents of one file, empty ones too.

        Args:
            name: how messages name the file.
            path: where it lies.
            tally: where what is left out is counted.

        Raises:
            DocumentError: the file cannot be read; the message begins with `name`.
            OSError: the same.
        """

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that the settings name."""
        return self.settings.splits

    def files(self, split: Split) -> dict[str, Path]:
        """Return the files of a split in order, by the names that messages show."""
        return find(self.settings.patterns(split), self.suffixes)

    def read(self, split: Split) -> Iterator[Document]:
        """Yield the documents of a split's files; those of nothing but white space are left out."""
        tally = Tally()
        for name, path in self.files(split).items():
            try:
                for document in self.documents(name, path, tally):
                    if _empty(document):
                        tally.count(EMPTY)
                    else:
                        yield document
            except OSError as error:
                self.leave_out(_told(error, name), tally)
            except DocumentError as error:
                self.leave_out(error, tally)
        self._report = tally.report()

    def leave_out(self, error: DocumentError, tally: Tally, what: str = BROKEN) -> None:
        """Count what cannot be read, a file or a part of it.

        Raises:
            DocumentError: the settings say that it stops the work.
        """
        if self.stops:
            raise error from None
        tally.count(what)
        tally.problem(str(error))

    def size(self, split: Split) -> int:
        """Return about how many bytes a split's files have when unpacked."""
        return sum(unpacked_size(path) for path in self.files(split).values())

    def fingerprint(self, split: Split) -> str:
        """Return the sha256 over the contents of a split's files, in order; names do not count."""
        return digest_fields([self._digest(name, path) for name, path in self.files(split).items()])

    def _digest(self, name: str, path: Path) -> str:
        try:
            return digest_file(path)
        except OSError as error:
            if self.stops:
                raise _told(error, name) from None
            return "cannot be read"

    def report(self) -> ReadReport:
        """Return what the last complete `read` left out and decided."""
        return self._report


class TextFileReader(FileReader):
    """Reads files of plain text in the encoding that the settings name."""

    chunk_bytes: ClassVar[int] = 2**18
    """How many bytes are read at a time, few enough for the cache; the documents do not depend on it."""

    settings: TextFilesSettings

    def __init__(self, settings: TextFilesSettings) -> None:
        super().__init__(settings)
        if settings.encoding == AUTO:
            check_guessing()

    def utf8(self, name: str, path: Path, tally: Tally) -> Iterator[bytes]:
        r"""Yield a file's text piece by piece, whole characters in UTF-8, every line end turned into \n.

        Raises:
            DocumentError: bytes are no text; the message has the name of the file and their offset.
            OSError: the file cannot be read.
        """
        encoding = self.settings.encoding
        if encoding == AUTO:
            encoding = self.guess(name, path)
            tally.chose(name, encoding)
        errors = self.settings.encoding_errors
        return utf8(path, name, self.chunk_bytes, tally, encoding=encoding, errors=errors)

    def pieces(self, name: str, path: Path, tally: Tally) -> Iterator[str]:
        """Yield what `utf8` does, as strings."""
        return (piece.decode() for piece in self.utf8(name, path, tally))

    def guess(self, name: str, path: Path) -> str:
        """Return the encoding that a file most likely has; UTF-8 where there is no telling."""
        return guess(path, name) or "utf-8"


def _empty(document: Document) -> bool:
    if document.text is not None:
        return not document.text or document.text.isspace()
    return not any(message.content.strip() for message in document.messages or ())


def _told(error: OSError, name: str) -> DocumentError:
    return DocumentError(f"{error.filename or name}: {error.strerror or error}")
