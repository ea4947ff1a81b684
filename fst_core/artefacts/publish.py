"""Publishing: an artefact appears whole, by one rename, or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from fst_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["flush", "locked", "numbered", "publishing", "write_whole"]


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep a directory to this process; the system frees the lock when the process ends, however it ends.

    Raises:
        UserError: another process works on it, or nothing can be written there.
    """
    lock = FileLock(directory / ".lock", timeout=0)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{directory}: another run works on it (lock {lock.lock_file}). Wait for it to end."
        ) from None
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """Give an empty hidden directory beside the target, which becomes the target if the block succeeds.

    What a killed process left behind is removed first; the caller holds the lock of the parent.
    """
    staging = target.parent / f".{target.name}.partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        _fsync_tree(staging)
        staging.rename(target)
        _fsync_directory(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file beside its place and rename it, so that nobody ever reads half of it."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_bytes(content)
        _fsync_file(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _fsync_directory(path.parent)


def flush(files: Iterable[Path]) -> None:
    """Make the content of files survive a power cut, before `publishing` does, for which little is left."""
    for file in files:
        _fsync_file(file)


def numbered(directory: Path) -> list[Path]:
    """Return the numbered directories `1`, `2`, ... below a directory, oldest first."""
    if not directory.is_dir():
        return []
    return sorted(
        (p for p in directory.iterdir() if p.name.isdecimal() and p.is_dir()),
        key=lambda p: int(p.name),
    )


def _fsync_tree(directory: Path) -> None:
    """Make every file and folder below a directory survive a power cut."""
    for root, _, names in os.walk(directory):
        for name in names:
            _fsync_file(Path(root) / name)
        _fsync_directory(Path(root))


def _fsync_file(path: Path) -> None:
    """Make a file's content survive a power cut."""
    # A copied file may be read-only, which POSIX lets us flush; Windows flushes what may be written.
    with path.open("rb" if os.name == "posix" else "rb+") as file:
        os.fsync(file.fileno())


def _fsync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut, where the system can."""
    if os.name == "posix":  # elsewhere a directory cannot be opened
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
