"""Which files paths and glob patterns name."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from fst_core.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["find"]


def find(patterns: Iterable[str], suffixes: tuple[str, ...] | None = ()) -> dict[str, Path]:
    """Return files by name: patterns in the order given, the matches of each sorted, no file twice.

    Args:
        patterns: paths or glob patterns, relative to the working directory.
        suffixes: lower-case file endings; a folder stands for its files that have one of them, at
            any depth, but for hidden ones. None: for all its files. Without any a folder is an error.

    Raises:
        DocumentError: a file is missing, or a pattern matches none.
    """
    return {str(path): path for pattern in patterns for path in _matches(pattern, suffixes)}


def _matches(pattern: str, suffixes: tuple[str, ...] | None) -> list[Path]:
    path = Path(pattern)
    if path.is_file():  # a name may hold [ and ]: what exists is meant as it is
        return [path]
    if path.is_dir():
        if suffixes == ():
            raise DocumentError(f"{path}: a folder; name files, or a pattern such as '{path}/*'")
        found = [
            p
            for p in path.rglob("*")
            if (suffixes is None or p.name.lower().endswith(suffixes))
            and not _hidden(p.relative_to(path))
        ]
        missing = f"{path}: the folder holds no {_kinds(suffixes)}"
    elif path.exists():
        raise DocumentError(f"{path}: neither a file nor a folder")
    elif glob.has_magic(pattern):
        found = [Path(match) for match in _glob(pattern)]
        missing = f"{pattern}: no file matches this pattern"
    else:
        found = []
        missing = f"{path}: no such file; paths are relative to the working directory"
    files = [p for p in found if p.is_file()]
    if not files:
        raise DocumentError(missing)
    return sorted(files, key=Path.as_posix)  # a folder's own order differs from machine to machine


def _glob(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern


def _kinds(suffixes: tuple[str, ...] | None) -> str:
    plain = [suffix for suffix in suffixes or () if not suffix.endswith((".gz", ".zst"))]
    return f"{' or '.join(plain)} file".lstrip()


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
