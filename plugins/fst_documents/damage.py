"""What a library raises over a file that it cannot read, told as a line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fst_core.errors import DocumentError, FstError
from fst_core.plugins import told

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["reading"]


@contextmanager
def reading(name: str, kind: str) -> Iterator[None]:
    """Turn whatever is raised inside into a DocumentError that names the file.

    Raises:
        DocumentError: a library could not read the file.
    """
    try:
        yield
    except FstError:
        raise
    except Exception as error:
        raise DocumentError(
            f"{name}: damaged, or not {kind}: {told(error)}. "
            'Repair or remove it; on_error = "skip" leaves it out'
        ) from error
