"""Digests: what content is equal to what."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["digest_fields", "digest_file", "digest_files"]


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(paths: Iterable[Path]) -> str:
    """Return the sha256 over the contents of files in the order given; their names do not count."""
    return digest_fields([digest_file(path) for path in paths])


def digest_fields(fields: Mapping[str, Any] | list[Any]) -> str:
    """Return the sha256 of plain data, written as JSON with sorted keys."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
