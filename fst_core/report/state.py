"""What became of a run: it is finished, or running, or it failed, or it was interrupted."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock, Timeout

from fst_core.artefacts.publish import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fst_core.pipeline.runs import PastRun

__all__ = ["RunState", "record_error", "states"]

_ERROR: Final = "error.json"
"""The file of a run that says what ended it, and when; it holds until the run goes on."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What became of a run."""

    name: Literal["finished", "running", "failed", "interrupted"]
    """`failed` and `interrupted`: `fst train` goes on with it."""
    error: str | None = None
    """What a failed run stopped with."""


def record_error(directory: Path, error: str) -> None:
    """Keep what ended a run."""
    said = {"time": round(time.time(), 3), "error": error}
    write_whole(directory / _ERROR, f"{json.dumps(said, ensure_ascii=False)}\n".encode())


def states(runs: Sequence[PastRun]) -> list[RunState]:
    """Return what became of each run.

    Whoever trains holds the lock of all runs of a name, so the one that it works on is that which
    changed last.
    """
    unfinished: dict[Path, list[Path]] = {}
    for run in runs:
        if not run.manifest:
            unfinished.setdefault(run.directory.parent, []).append(run.directory)
    running = {max(paths, key=_changed) for name, paths in unfinished.items() if _is_held(name)}
    return [_state(run, running) for run in runs]


def _state(run: PastRun, running: set[Path]) -> RunState:
    if run.manifest:
        return RunState("finished")
    if run.directory in running:
        return RunState("running")
    error = _error(run)
    return RunState("interrupted") if error is None else RunState("failed", error)


def _error(run: PastRun) -> str | None:
    """Return what ended a run, unless it has gone on since."""
    try:
        said = json.loads((run.directory / _ERROR).read_bytes())
        when, error = float(said["time"]), str(said["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return error if when >= max(run.times, default=0.0) else None


def _is_held(directory: Path) -> bool:
    """Return whether a process holds the lock of a directory; takes it for a moment to see."""
    lock = directory / ".lock"
    if not lock.is_file():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # nothing can be written there, by a training either
        return False


def _changed(directory: Path) -> float:
    """Return when something in a run changed last."""
    times = [0.0]
    for path in (directory, *directory.glob("*"), *directory.glob("*/*")):
        try:
            times.append(path.stat().st_mtime)
        except OSError:  # a checkpoint that has just been removed
            continue
    return max(times)
