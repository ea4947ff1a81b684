"""Room on the disk: whether there is enough before the work, and what is said when it runs out."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fst_core.errors import FstError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_space", "telling_full_disk"]

_REMEDY = "Free some, or set dataset.root to a larger disk."


def check_space(directory: Path, needed: int) -> None:
    """Check that about `needed` bytes can be written to a directory.

    Raises:
        UserError: fewer are free.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise UserError(
            f"{directory.parent}: the dataset needs about {_megabytes(needed)}, and "
            f"{_megabytes(free)} are free. {_REMEDY}"
        )


@contextmanager
def telling_full_disk(directory: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into one that says what can be done.

    Raises:
        FstError: nothing more can be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        free = shutil.disk_usage(directory).free  # what was half written is removed by now
        raise FstError(
            f"{directory}: {error.strerror}: the {_megabytes(free)} that are free now that the "
            f"unfinished dataset is removed were too few. {_REMEDY}"
        ) from None


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
