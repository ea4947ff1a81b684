"""The parts of a file that is a ZIP archive, unpacked within a bound."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Final, Self

from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Archive"]

_ENCRYPTED: Final = 0x1
"""The flag of an archive's part."""


class Archive:
    """A ZIP archive whose parts are read one by one; together they are no larger than a bound.

    Raises:
        zipfile.BadZipFile: it is none.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, name: str, max_bytes: int) -> None:
        self._name = name
        self._max_bytes = self._left = max_bytes
        self._zip = zipfile.ZipFile(path)
        self.names: Final = frozenset(self._zip.namelist())

    def read(self, part: str) -> bytes:
        """Return the bytes of a part.

        Raises:
            DocumentError: there is no such part, it is encrypted, or too much was unpacked.
        """
        if part not in self.names:
            raise DocumentError(f"{self._name}: damaged: it has no '{part}'")
        info = self._zip.getinfo(part)
        if info.flag_bits & _ENCRYPTED:
            raise DocumentError(f"{self._name}: encrypted; save it without a password")
        # No more bytes come out than the archive says, whatever is packed.
        self._left -= info.file_size
        if self._left < 0:
            raise DocumentError(
                f"{self._name}: unpacks to more than {self._max_bytes:,} bytes; "
                "raise max_unpacked_bytes if it is no trap"
            )
        return self._zip.read(info)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
