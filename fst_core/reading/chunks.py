"""The bytes of a file, streamed; those of gzip and zstd files are unpacked."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Final

from fst_core.errors import DocumentError, MissingDependency, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

__all__ = ["chunks", "unpacked_size"]

_ZSTD_INPUT: Final = 2**9
"""Bytes unpacked at a time: 4 of them may stand for 128 KB, which bounds what comes out at once."""
_PACKED: Final = 3
"""About how many bytes of text a compressed byte stands for."""


def chunks(path: Path, name: str, chunk_bytes: int) -> Iterator[bytes]:
    """Yield a file's bytes, at most `chunk_bytes` at a time, unpacked if its name ends in .gz or .zst.

    Raises:
        DocumentError: the compressed data is damaged or ends too early; the message begins with `name`.
        MissingDependency: zstandard is not installed, and the file needs it.
        OSError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    with path.open("rb", buffering=0) as file:
        if suffix == ".gz":
            yield from _gunzipped(file, name, chunk_bytes)
        elif suffix == ".zst":
            yield from _unzstd(file, name, chunk_bytes)
        else:
            while chunk := file.read(chunk_bytes):
                yield chunk


def unpacked_size(path: Path) -> int:
    """Return about how many bytes a file has when it is unpacked."""
    size = path.stat().st_size
    return size * _PACKED if path.suffix.lower() in {".gz", ".zst"} else size


def _gunzipped(file: BinaryIO, name: str, chunk_bytes: int) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        while True:
            try:
                chunk = unpacked.read(chunk_bytes)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise DocumentError(f"{name}: damaged gzip data: {one_line(error)}") from None
            if not chunk:
                return
            yield chunk


def _unzstd(file: BinaryIO, name: str, chunk_bytes: int) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise MissingDependency(
            f"{name}: a .zst file needs zstandard. "
            "Install it: pip install 'full-stack-transformer[files]'"
        ) from None
    frame = zstandard.ZstdDecompressor().decompressobj()
    begun = False  # whether the frame has some of its bytes
    while data := file.read(_ZSTD_INPUT):
        while data:
            try:
                unpacked = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise DocumentError(f"{name}: damaged zstd data: {one_line(error)}") from None
            for start in range(0, len(unpacked), chunk_bytes):
                yield unpacked[start : start + chunk_bytes]
            begun, data = not frame.eof, frame.unused_data
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
    if begun:
        raise DocumentError(f"{name}: damaged zstd data: it ends too early")
