"""Digests: what content is equal to what."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["digest_fields", "digest_file", "digest_files"]

_PART: Final = 2**20
"""Bytes that are read at once, so many that a thread seldom waits for its turn among others."""


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    digest, part = hashlib.sha256(), memoryview(bytearray(_PART))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(part):
            digest.update(part[:count])
    return digest.hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Return the sha256 over the contents of files in the order given; their names do not count."""
    return digest_fields([digest_file(path) for path in paths])


def digest_fields(fields: Mapping[str, Any] | list[Any]) -> str:
    """Return the sha256 of plain data, written as JSON with sorted keys."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
