"""Sources: where the files of a pretrained model are, as a setting names them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fst_core.errors import UserError
from fst_transformers.config import CONFIG, GENERATION
from fst_transformers.hub import fetch
from fst_transformers.weights import INDEX, WEIGHTS

__all__ = ["is_gguf", "locate"]

_FILES: Final = [CONFIG, GENERATION, WEIGHTS, INDEX, "model-*.safetensors"]


def locate(path: str) -> Path:
    """Return a directory, or a GGUF file; what is neither is looked up on the hub and fetched.

    Raises:
        UserError: there is no such directory or file, and the hub does not have or give it.
    """
    local = Path(path).expanduser()
    if local.is_dir() or (local.is_file() and is_gguf(local)):
        return local
    if local.is_file():
        raise UserError(f"{path}: not a .gguf file. Name the directory that holds the model.")
    remedy = "Name a model's directory, a .gguf file, or a hub name."
    if is_gguf(local):
        raise UserError(f"{path}: no such file. {remedy}")
    return fetch(path, _FILES, remedy)


def is_gguf(path: Path) -> bool:
    """Say whether a path is named as a GGUF file."""
    return path.suffix.lower() == ".gguf"
