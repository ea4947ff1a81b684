"""A dataset prepared in parallel: an executor makes its shards, which are joined in their order."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import read_manifest
from fst_core.artefacts.model import TOKENIZER
from fst_core.documents import ReadReport
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.preparation.preparation import Preparation, tell_reading
from fst_core.preparation.progress import silent
from fst_core.preparation.shards import Shard, join

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fst_core.interfaces import Executor
    from fst_core.pipeline.pipeline import Pipeline
    from fst_core.pipeline.plan import Plan

__all__ = ["prepare_in_parallel"]


@dataclass(frozen=True, slots=True)
class _Task:
    """A shard to make, as plain data: whoever makes it may be another process of another machine."""

    tables: Mapping[str, Any]
    file: str
    folder: Path
    """What the paths of the pipeline are relative to."""
    plan: Plan
    shard: Shard
    directory: Path
    tokenizer: Path


def prepare_in_parallel(
    pipeline: Pipeline, plan: Plan, directory: Path, tell: Callable[[str], None]
) -> None:
    """Make a dataset in a directory by the pipeline's executor; it needs the same files wherever it works.

    Raises:
        UserError: the documents do not make a dataset, or there is no room for it.
    """
    assert pipeline.executor is not None
    executor: Executor = pipeline.executor.build()
    count = pipeline.dataset.shards or os.cpu_count() or 1
    Preparation(pipeline, plan, directory, tell).save_tokenizer()
    made = directory / "shards"
    made.mkdir()
    tasks = [
        _Task(
            {**pipeline.tables, "run": pipeline.run.model_dump(mode="json")},
            pipeline.file,
            Path.cwd(),
            plan,
            Shard(index, count),
            (made / str(index)).absolute(),
            (directory / TOKENIZER).absolute(),
        )
        for index in range(1, count + 1)
    ]
    shards = []
    for shard in executor.map(_make, tasks):
        shards.append(shard)
        tell(
            f"prepare: {len(shards)} of {count} shards are made, by '{pipeline.executor.offer.name}'"
        )
    join(shards, directory, discard=made)
    manifest = read_manifest(directory)
    tell_reading(ReadReport(**manifest["reading"]), tell)
    counts = manifest["counts"]
    tell(
        f"prepare: {counts['number_of_train_tokens']:,} tokens to train on, "
        f"{counts['number_of_valid_tokens']:,} to validate on -> {plan.directory}"
    )


def _make(task: _Task) -> Path:
    os.chdir(task.folder)
    pipeline = check_pipeline(task.file, task.tables)
    shutil.rmtree(task.directory, ignore_errors=True)  # of one who was lost on the way
    task.directory.mkdir(parents=True)
    Preparation(pipeline, task.plan, task.directory, silent, task.shard, task.tokenizer).make()
    return task.directory
