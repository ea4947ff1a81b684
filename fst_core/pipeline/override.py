"""Going on with a run although what it is made from has changed: asked for by name, and written down."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Final

from fst_core.artefacts.publish import locked, numbered, write_whole
from fst_core.errors import UserError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.prepare import plan_prepare
from fst_core.pipeline.train import MODEL, RUN, plan_train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fst_core.pipeline.pipeline import Pipeline

__all__ = ["OVERRIDES", "is_overridden", "override"]

OVERRIDES: Final = "overrides.jsonl"
"""The file of a run with a line each time that it went on as something else: when, and what differed."""


def override(pipeline: Pipeline, tell: Callable[[str], None]) -> None:
    """Let the newest run of a pipeline, which is not finished, be what the pipeline says now.

    Its trainer goes on with it as far as it can. A pipeline that has a run already is left alone.

    Raises:
        UserError: there is no such run.
    """
    plan = plan_train(pipeline, plan_prepare(pipeline).fingerprint)
    if plan.action != "make":
        return
    runs = [path for path in numbered(pipeline.runs) if (path / RUN).is_file()]
    if not runs or (runs[-1] / MODEL).exists():
        what = f"{runs[-1]} is finished" if runs else f"there is no run below {pipeline.runs}"
        raise UserError(f"--resume-anyway: {what}, so there is nothing to go on with. Leave it out")
    directory = runs[-1]
    with locked(pipeline.runs):
        try:
            fields = json.loads((directory / RUN).read_bytes())["fields"]
            differing = Fingerprint(**plan.fields).differences(fields)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{directory}: not a run: {error}") from None
        _note(directory, differing)
        described = {"schema": 1, "fingerprint": plan.fingerprint, "fields": plan.fields}
        write_whole(directory / RUN, f"{json.dumps(described, indent=1)}\n".encode())
        _write_tables(pipeline, directory)
    tell("\n  ".join([f"train: {directory} is to go on with what differs:", *differing]))


def is_overridden(directory: Path) -> bool:
    """Return whether a run ever went on as something else than it began as."""
    return (directory / OVERRIDES).is_file()


def _note(directory: Path, differing: list[str]) -> None:
    with (directory / OVERRIDES).open("a", encoding="utf-8", newline="\n") as file:
        line = {"time": round(time.time(), 3), "differences": differing}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())  # before anything goes on that way


def _write_tables(pipeline: Pipeline, directory: Path) -> None:
    import tomli_w

    write_whole(directory / "pipeline.toml", tomli_w.dumps(pipeline.tables).encode())
