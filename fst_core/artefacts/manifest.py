"""The manifest `fst.json`: what a directory is, how it was made, and the sha256 of every file in it.

It is written last: a directory without it is not an artefact.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.digests import digest_file
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MANIFEST", "read_manifest", "verify", "write_manifest"]

MANIFEST = "fst.json"
SCHEMA = 1
_PACKAGES = ("numpy", "tokenizers", "fastokens", "torch", "transformers", "pytorch-lightning")
_FIELDS = {"files": dict, "fingerprint": str, "fields": dict, "components": dict, "counts": dict}
"""What a manifest may say that others read, and its type."""
_LARGEST = 16 * 2**20
"""Bytes; a manifest is small, and a larger file of that name is not one."""


def write_manifest(directory: Path, kind: str, **fields: Any) -> None:
    """Describe a directory: `fields` beside its kind, the versions at work, and its files' digests."""
    files = sorted(
        path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST
    )
    manifest = {
        "schema": SCHEMA,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        **fields,
        "files": {
            path.relative_to(directory).as_posix(): {
                "sha256": digest_file(path),
                "bytes": path.stat().st_size,
            }
            for path in files
        },
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (directory / MANIFEST).write_text(text, "utf-8", newline="\n")


def read_manifest(directory: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a directory's manifest and compare its files' sizes, which takes no time.

    Raises:
        ArtefactError: it is missing, damaged or of another kind, a file has another size, or
            something in the directory is neither a file nor a folder, or leads out of it.
    """
    if not directory.is_dir():
        raise ArtefactError(f"{directory}: no such directory")
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtefactError(
            f"{directory}: not an artefact of FST: it has no {MANIFEST}{_meant(directory, kind)}"
        )
    manifest = _parse(path)
    if kind is not None and manifest.get("kind") != kind:
        raise ArtefactError(f"{directory}: of kind {_cut(manifest.get('kind'))}, not a {kind}")
    for name, file in manifest["files"].items():
        inside = _inside(directory, name)
        said = (file.get("bytes"), file.get("sha256")) if isinstance(file, dict) else ()
        if list(map(type, said)) != [int, str]:
            raise ArtefactError(f"{path}: damaged: it does not say what {_cut(name)} holds")
        if (found := _size(inside)) != file["bytes"]:
            state = "missing" if found is None else f"{found} bytes long instead of {file['bytes']}"
            raise ArtefactError(f"{inside}: {state}; the artefact is damaged")
    _check_plain(directory)
    return manifest


def _meant(directory: Path, kind: str | None) -> str:
    """Return what to name in place of a directory that is no artefact itself; nothing if unknown."""
    from fst_core.artefacts.publish import numbered

    if _is_run(directory):
        if kind == "dataset":
            return ". It is a run: name a dataset, such as those below data/datasets"
        model = directory / "model"
        if (model / MANIFEST).is_file():
            return f". Name the model of the run: {model}"
        return ". It is a run that has no model yet: `fst train` goes on with it"
    newest = next((p for p in reversed(numbered(directory)) if _is_named(p, kind)), None)
    return f". Name one of those in it: the newest is {newest}" if newest else ""


def _is_run(directory: Path) -> bool:
    return (directory / "run.json").is_file() or (directory / "model" / MANIFEST).is_file()


def _is_named(directory: Path, kind: str | None) -> bool:
    """Tell whether a directory is of the kind that is wanted; a run stands for its model."""
    if (directory / MANIFEST).is_file():
        try:
            return kind in (None, _parse(directory / MANIFEST).get("kind"))
        except ArtefactError:
            return False
    return kind != "dataset" and (directory / "model" / MANIFEST).is_file()


def _parse(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise ArtefactError(f"{path}: too large to be a manifest")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: damaged: {error}") from None
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(manifest, dict) or "files" not in manifest:
        raise ArtefactError(f"{path}: damaged: not a manifest")
    if manifest.get("schema") != SCHEMA:
        raise ArtefactError(
            f"{path}: written by another version of FST "
            f"(schema {_cut(manifest.get('schema'))}, here {SCHEMA})"
        )
    for name, kept in _FIELDS.items():
        if name in manifest and not isinstance(manifest[name], kept):
            raise ArtefactError(f"{path}: damaged: '{name}' is not what a manifest holds there")
    return manifest


def _check_plain(directory: Path) -> None:
    """Check that whoever loads a file of the directory, listed or not, neither waits nor leaves it."""
    for root, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = Path(root) / name
            _check_inside(directory, path)
            if path.exists() and not path.is_file() and not path.is_dir():
                raise ArtefactError(f"{path}: neither a file nor a folder")


def verify(directory: Path) -> Mapping[str, Any]:
    """Compare the sha256 of every file with the manifest, and return the manifest.

    Raises:
        ArtefactError: a file is missing or differs.
    """
    manifest = read_manifest(directory)
    for name, file in manifest["files"].items():
        if digest_file(_inside(directory, name)) != file["sha256"]:
            raise ArtefactError(
                f"{directory / name}: its content is not what was written; the artefact is damaged"
            )
    return manifest


def _inside(directory: Path, name: str) -> Path:
    """Return the path of a manifest's file, which must lie in its directory.

    Raises:
        ArtefactError: it leads elsewhere.
    """
    pure = PurePosixPath(name)
    plain = (
        not ({"..", "~"} & set(pure.parts))
        and "\0" not in name
        and "\\" not in name
        and "$" not in name
    )
    if not plain or pure.is_absolute() or PureWindowsPath(name).drive or len(name) > 1000:
        raise ArtefactError(
            f"{directory / MANIFEST}: names a file outside of its directory: {_cut(name)}"
        )
    _check_inside(directory, directory / pure)
    return directory / pure


def _check_inside(directory: Path, path: Path) -> None:
    """Check that a path stays in its directory when links are followed."""
    try:
        inside = path.resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):  # too long, a ring of links, half a character
        raise ArtefactError(f"{directory}: holds no such file: {_cut(path.name)}") from None
    if not inside:
        raise ArtefactError(f"{path}: leads outside of {directory}")


def _size(path: Path) -> int | None:
    """Return the length of a file; None if there is none."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # the name is too long
        return None


def _cut(value: object) -> str:
    """Return a damaged value as it is shown: no longer than a line."""
    return repr(value)[:80]


def _versions() -> dict[str, str]:
    from fst_core.plugins import DISTRIBUTION, version_of

    versions = {"fst": version_of(DISTRIBUTION) or "0", "python": platform.python_version()}
    return versions | {
        name: version for name in _PACKAGES if (version := version_of(name)) is not None
    }
