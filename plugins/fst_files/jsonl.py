"""The reader `jsonl`: a JSON object a line, with a text or a conversation."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from fst_core.errors import DocumentError
from fst_core.reading.reader import TextFileReader
from fst_core.reading.records import document_of
from fst_core.reading.text import whole
from fst_files.lines import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fst_core import Document
    from fst_core.reading.tally import Tally
    from fst_files.settings import JsonlSettings

__all__ = ["JsonlReader"]


class JsonlReader(TextFileReader):
    """Reads JSON lines (jsonlines.org); blank lines and fields that are not named are skipped."""

    suffixes: ClassVar = (".jsonl", ".jsonl.gz", ".jsonl.zst")
    settings: JsonlSettings

    def documents(self, name: str, path: Path, tally: Tally) -> Iterator[Document]:
        """Yield a document for each line, empty ones too."""
        before = 1  # the number of the block's first line
        for lines in blocks(self.utf8(name, path, tally)):
            for number, line in enumerate(lines, before):
                if not _is_blank(line):
                    try:
                        document = self._document(line, f"{name}:{number}", tally)
                    except DocumentError as error:
                        self.leave_out(error, tally, "broken lines")
                    else:
                        yield document
            before += len(lines)

    def _document(self, line: bytes, place: str, tally: Tally) -> Document:
        if fast is not None:
            with suppress(ValueError):
                return document_of(_object(fast(line), place), self.settings, place)
        # Half of a surrogate pair, which JSON can write, is among what the fast parser refuses.
        errors = self.settings.encoding_errors
        return document_of(
            _parse(line, place),
            self.settings,
            place,
            lambda text, where: whole(text, where, errors, tally),
        )


def _fast() -> Callable[[bytes], Any] | None:
    """Return the parser of orjson; None if it is not installed."""
    try:
        from orjson import loads
    except ImportError:
        return None
    return loads


fast = _fast()
"""The parser that is tried first: what it does not take, the standard library reads or explains."""


def _is_blank(line: bytes) -> bool:
    return not line.startswith(b"{") and not line.decode().strip()


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode())
    except json.JSONDecodeError as error:
        raise DocumentError(f"{place}: not JSON at column {error.colno}: {error.msg}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of thousands of digits, a thousand brackets
        raise DocumentError(f"{place}: cannot be read: {error}") from None
    return _object(value, place)


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DocumentError(f"{place}: not a JSON object")
    return value
