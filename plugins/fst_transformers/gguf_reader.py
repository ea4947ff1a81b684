"""Reading a GGUF file once: its parts take seconds to parse, and are asked for again and again."""

from __future__ import annotations

import functools
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ends_of", "forget", "reading_once"]

_ENDS: Final = ("eos", "eot", "eom")
"""Of a text, a turn and a message: llama.cpp ends an answer at each of them."""
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


def ends_of(path: Path) -> list[int]:
    """Return the ids that a file names as ends of texts and answers; parsed before, it is not parsed again."""
    fields = _opened(path).fields
    named = (fields.get(f"tokenizer.ggml.{end}_token_id") for end in _ENDS)
    return [int(field.parts[-1].tolist()[0]) for field in named if field is not None]


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
