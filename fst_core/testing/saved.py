"""What a component saved: its bytes, whether pickle is among them, and how it loads when damaged."""

from __future__ import annotations

import io
import pickletools
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["assert_damage_is_told", "contents", "pickled"]


def contents(directory: Path) -> dict[str, bytes]:
    """Return the content of every file below a directory, by its name."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def pickled(directory: Path) -> list[str]:
    """Return the names of files that are pickle, or hold it as `torch.save` does."""
    return [name for name, content in contents(directory).items() if _is_pickle(content)]


def assert_damage_is_told(load: Callable[[Path], Any], directory: Path) -> None:
    """Check what `load` says of an empty directory, and of one that lacks a file or half of one.

    The empty one is an ArtefactError; the others may load, or are that error and no other.
    """
    damaged = directory.with_name(f"{directory.name}-damaged")
    damaged.mkdir()
    with pytest.raises(ArtefactError):
        load(damaged)
    for name, content in contents(directory).items():
        for left in (None, content[: len(content) // 2]):
            shutil.rmtree(damaged)
            shutil.copytree(directory, damaged)
            if left is None:
                (damaged / name).unlink()
            else:
                (damaged / name).write_bytes(left)
            try:
                load(damaged)
            except ArtefactError as error:
                if str(damaged) not in str(error):
                    pytest.fail(f"the message does not name the place: {error}")


def _is_pickle(content: bytes) -> bool:
    file = io.BytesIO(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return any(_is_pickle(archive.read(name)) for name in archive.namelist())
    file.seek(0)
    try:
        for _ in pickletools.genops(file):
            pass
    except Exception:  # noqa: BLE001  # that is how pickletools says that it is something else
        return False
    return bool(content) and file.tell() == len(content)
