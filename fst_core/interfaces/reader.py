"""Readers turn a person's files into documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from fst_core.documents import ReadReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fst_core.documents import Document, Split

__all__ = ["Reader"]


class Reader(ABC):
    """Reads documents.

    An author writes two modules and an entry point `poems = "fst_reader_poems"` of group `fst`:

        # fst_reader_poems/__init__.py
        from fst_core import Component, hookimpl

        @hookimpl
        def fst_readers():
            yield Component("poems", f"{__name__}.reader:PoemReader", "One poem a file.",
                            settings=f"{__name__}.reader:PoemSettings")

        # fst_reader_poems/reader.py
        class PoemSettings(Settings):
            folder: Path
            \"\"\"Where the poems are.\"\"\"

        class PoemReader(Reader):
            def __init__(self, settings: PoemSettings) -> None:
                self.paths = sorted(settings.folder.glob("*.txt"))

            def splits(self):
                return ("train",)

            def read(self, split):
                for path in self.paths:
                    yield Document(text=path.read_text("utf-8"), source=str(path))

            def fingerprint(self, split):
                return digest_files(self.paths)

    A reader of files named by paths and patterns is shorter as a
    `fst_core.reading.reader.FileReader`, which knows broken files, encodings and compressed files.
    One whose component says `suffixes`, and whose setting `train` takes the path of a file, is
    among those that the reader `folder` uses.
    """

    format: ClassVar[int] = 1
    """Raised when the same settings and files begin to give other documents."""

    @abstractmethod
    def splits(self) -> tuple[Split, ...]:
        """Return the splits that the settings name: ("train",) or ("train", "valid")."""

    @abstractmethod
    def read(self, split: Split) -> Iterator[Document]:
        """Yield the documents of a split: the same ones in the same order at every call.

        Raises:
            DocumentError: a file is missing or cannot be decoded; the message names the place.
        """

    @abstractmethod
    def fingerprint(self, split: Split) -> str:
        """Return a digest of the content of a split's files: equal for equal documents.

        Raises:
            DocumentError: a file is missing.
        """

    def size(self, split: Split) -> int | None:  # noqa: ARG002  # for those that know
        """Return about how many bytes a split's files have, for progress and disk space; None: unknown.

        Raises:
            DocumentError: a file is missing.
        """
        return None

    def report(self) -> ReadReport:
        """Return what the last complete `read` left out and decided; what is left out is counted there."""
        return ReadReport()
