"""Reading a GGUF file once: its parts take seconds to parse, and are asked for again and again."""

from __future__ import annotations

import functools
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["forget", "reading_once"]

_lock = threading.RLock()


@contextmanager
def reading_once() -> Iterator[None]:
    """Let `transformers` have what is parsed already, within the block.

    It opens the file anew for the config, for the tokenizer and for the weights, and makes the table
    of their names anew for each layer, by names that it looks up in `gguf` each time. Here these mean
    functions that keep what they return; `forget` frees the file.

    Raises:
        ImportError: the package `gguf` is not installed.
    """
    import gguf

    kept = {"GGUFReader": _opened, "get_tensor_name_map": _names}
    with _lock:
        plain = {name: getattr(gguf, name) for name in kept}
        vars(gguf).update(kept)
        try:
            yield
        finally:
            vars(gguf).update(plain)


def forget() -> None:
    """Free the parsed file, whose strings take some ten megabytes."""
    _reader.cache_clear()


def _opened(path: str | os.PathLike[str]) -> Any:
    status = os.stat(path)  # noqa: PTH116  # a string or a path
    return _reader(os.fspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _reader(path: str, size: int, changed: int) -> Any:  # noqa: ARG001  # they tell files of one name apart
    from gguf.gguf_reader import GGUFReader

    return GGUFReader(path)


@functools.lru_cache(maxsize=1)
def _names(architecture: Any, blocks: int) -> Any:
    from gguf.tensor_mapping import get_tensor_name_map

    return get_tensor_name_map(architecture, blocks)
