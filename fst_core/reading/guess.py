"""Which encoding a file has, where nobody said it."""

from __future__ import annotations

import codecs
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from fst_core.errors import MissingDependency
from fst_core.reading.chunks import chunks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_guessing", "guess"]

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The byte order marks."""
_COMMON: Final = (
    *("cp1251", "koi8_r", "cp866", "iso8859_5", "cp1252", "cp1250", "iso8859_2", "cp1253"),
    *("cp1254", "cp1255", "cp1256", "cp1257", "cp932", "euc_jp", "gb18030", "big5", "cp949"),
)
"""The encodings that people's old files have; of equally likely ones the first is chosen."""
_CHUNK: Final = 2**16
_SAMPLE: Final = 2**18
"""Bytes on which a guess is made."""
_BEFORE: Final = 2**12
"""Bytes of the sample that stand before the first one that is not UTF-8."""


def check_guessing() -> None:
    """Check that encodings can be guessed.

    Raises:
        MissingDependency: charset-normalizer is not installed.
    """
    if find_spec("charset_normalizer") is None:
        raise MissingDependency(
            'encoding = "auto" needs charset-normalizer. '
            "Install it: pip install 'full-stack-transformer[files]'"
        )


def guess(path: Path, name: str) -> str | None:
    """Return the encoding that a file most likely has; None if there is no telling.

    A byte order mark tells it, and whatever is UTF-8 is UTF-8. Of other bytes a sample is judged, from
    the first that is not: UTF-16 by its zeros, others by charset-normalizer where it is installed.

    Raises:
        DocumentError: the file is compressed, and damaged.
        OSError: it cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    sample = bytearray()
    zeros, bad = [0, 0], False
    position = 0
    for chunk in chunks(path, name, _CHUNK):
        if not position and (marked := _marked(chunk)):
            return marked
        for parity in (0, 1):
            zeros[(position + parity) % 2] += chunk.count(0) and chunk[parity::2].count(0)
        position += len(chunk)
        sample += chunk
        if not bad:
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                bad = True
            del sample[: -_BEFORE - len(chunk)]
        if bad and len(sample) >= _SAMPLE:
            break
    if max(zeros) > 1 and 20 * max(zeros) > position > 100 * min(zeros):
        return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    if not bad and not decoder.getstate()[0]:
        return "utf-8"
    return _judged(bytes(sample[:_SAMPLE]))


def _marked(head: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def _judged(sample: bytes) -> str | None:
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return None
    # Lines of ASCII say nothing, and would outweigh the few that do.
    telling = b"\n".join(line for line in sample.split(b"\n") if not line.isascii())
    matches = list(from_bytes(telling, cp_isolation=list(_COMMON)))
    if not matches:
        return None
    best = matches[0]
    equal = [m for m in matches if (m.chaos, m.coherence) == (best.chaos, best.coherence)]
    names = {name for match in equal for name in match.could_be_from_charset}
    return codecs.lookup(min(names & set(_COMMON), key=_COMMON.index, default=best.encoding)).name
