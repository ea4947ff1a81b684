"""The hub: a name of somebody's model becomes a directory, fetched unless it is here already."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fst_core.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["fetch"]

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def fetch(name: str, files: Iterable[str], remedy: str) -> Path:
    """Return the directory of a hub name's files.

    Args:
        name: what a setting says, which is no path.
        files: names or patterns of the files that are wanted.
        remedy: what the user may write instead, for the error.

    Raises:
        UserError: it is no hub name, or the hub does not have or give it.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name}: no such file or directory. {remedy}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*files]))
    except Exception as error:  # noqa: BLE001  # whatever the network and the hub's client do
        raise UserError(
            f"{name}: neither here nor to be had from the hub: {one_line(error)}. {remedy}"
        ) from None
