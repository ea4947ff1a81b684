r"""The text and the lines of a file, streamed: memory is bounded by a chunk and the longest line.

A line ends at \n, \r\n or \r, and at nothing else; a byte order mark at the start is dropped. What
comes out does not depend on the size of the chunks.
"""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING

from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["blocks", "pieces"]

_BOM = "\ufeff"


def pieces(path: Path, name: str, chunk_bytes: int) -> Iterator[str]:
    r"""Yield a file's text piece by piece, every line end turned into \n.

    Raises:
        DocumentError: the file is not UTF-8; the message has `name` and the byte's offset.
        OSError: the file cannot be read.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    position = 0
    begun = False
    with path.open("rb", buffering=0) as file:
        while True:
            chunk = file.read(chunk_bytes)
            position += len(chunk)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # The object is what the decoder had held back, and this chunk: they end together.
                offset = position - len(error.object) + error.start
                raise DocumentError(f"{name}: not UTF-8 at byte {offset}: {error.reason}") from None
            if text and not begun:
                begun = True
                text = text.removeprefix(_BOM)
            if text:
                yield text
            if not chunk:
                return


def blocks(path: Path, name: str, chunk_bytes: int) -> Iterator[list[str]]:
    """Yield a file's lines, without their ends, many at a time.

    Raises:
        DocumentError: the file is not UTF-8; the message has `name` and the byte's offset.
        OSError: the file cannot be read.
    """
    begun: list[str] = []  # the pieces of a line whose end has not come yet
    for text in pieces(path, name, chunk_bytes):
        first, *lines = text.split("\n")
        begun.append(first)
        if lines:
            ended = "".join(begun)
            begun = [lines.pop()]
            yield [ended, *lines]
    if last := "".join(begun):
        yield [last]
