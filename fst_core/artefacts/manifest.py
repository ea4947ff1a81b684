"""The manifest `fst.json`: what a directory is, how it was made, and the sha256 of every file in it.

It is written last: a directory without it is not an artefact.
"""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.digests import digest_file
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MANIFEST", "read_manifest", "verify", "write_manifest"]

MANIFEST = "fst.json"
SCHEMA = 1
_PACKAGES = ("numpy", "tokenizers", "torch", "transformers", "pytorch-lightning")
_LARGEST = 16 * 2**20
"""Bytes; a manifest is small, and a larger file of that name is not one."""


def write_manifest(directory: Path, kind: str, **fields: Any) -> None:
    """Describe a directory: `fields` beside its kind, the versions at work, and its files' digests."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        **fields,
        "files": {
            path.relative_to(directory).as_posix(): {"sha256": digest_file(path), "bytes": path.stat().st_size}
            for path in files
        },
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (directory / MANIFEST).write_text(text, "utf-8", newline="\n")


def read_manifest(directory: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a directory's manifest and compare its files' sizes, which takes no time.

    Raises:
        ArtefactError: it is missing, damaged or of another kind, or a file has another size.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise ArtefactError(f"{directory}: no such directory")
    if not path.is_file():
        raise ArtefactError(f"{directory}: not an artefact of FST: it has no {MANIFEST}")
    if path.stat().st_size > _LARGEST:
        raise ArtefactError(f"{path}: too large to be a manifest")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: damaged: {error}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ArtefactError(f"{path}: damaged: not a manifest")
    if manifest.get("schema") != SCHEMA:
        raise ArtefactError(f"{path}: written by another version of FST (schema {manifest.get('schema')!r}, here {SCHEMA})")
    if kind is not None and manifest.get("kind") != kind:
        raise ArtefactError(f"{directory}: a {manifest.get('kind')}, not a {kind}")
    for name, file in manifest["files"].items():
        expected = file.get("bytes") if isinstance(file, dict) else None
        found = _size(_inside(directory, name))
        if found != expected:
            state = "missing" if found is None else f"{found} bytes long instead of {expected}"
            raise ArtefactError(f"{directory / name}: {state}; the artefact is damaged")
    return manifest


def verify(directory: Path) -> Mapping[str, Any]:
    """Compare the sha256 of every file with the manifest, and return the manifest.

    Raises:
        ArtefactError: a file is missing or differs.
    """
    manifest = read_manifest(directory)
    for name, file in manifest["files"].items():
        if digest_file(_inside(directory, name)) != file.get("sha256"):
            raise ArtefactError(f"{directory / name}: its content is not what was written; the artefact is damaged")
    return manifest


def _inside(directory: Path, name: str) -> Path:
    """Return the path of a manifest's file, which must lie in its directory.

    Raises:
        ArtefactError: it leads elsewhere.
    """
    pure = PurePosixPath(name)
    plain = not ({"..", "~"} & set(pure.parts)) and "\0" not in name and "\\" not in name and "$" not in name
    if not plain or pure.is_absolute() or PureWindowsPath(name).drive or len(name) > 1000:
        raise ArtefactError(f"{directory / MANIFEST}: names a file outside of its directory: {name[:80]!r}")
    path = directory / pure
    try:
        escapes = not path.resolve().is_relative_to(directory.resolve())
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from None
    if escapes:
        raise ArtefactError(f"{path}: leads outside of {directory}")
    return path


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _versions() -> dict[str, str]:
    from fst_core.plugins import DISTRIBUTION, version_of

    versions = {"fst": version_of(DISTRIBUTION) or "0", "python": platform.python_version()}
    return versions | {name: version for name in _PACKAGES if (version := version_of(name)) is not None}
