"""The stage `prepare`: documents -> tokenizer -> dataset."""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import read_manifest
from fst_core.artefacts.publish import locked, publishing
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError, DocumentError, UserError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.plan import Plan, number
from fst_core.preparation.ahead import meanwhile
from fst_core.preparation.parallel import prepare_in_parallel
from fst_core.preparation.preparation import Preparation
from fst_core.preparation.shards import SHARD, join
from fst_core.preparation.space import telling_full_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from fst_core.documents import Split
    from fst_core.interfaces import Reader
    from fst_core.pipeline.pipeline import Pipeline
    from fst_core.preparation.shards import Shard

__all__ = ["join_shards", "plan_prepare", "prepare", "prepare_shard"]


def plan_prepare(pipeline: Pipeline) -> Plan:
    """Plan the dataset of a pipeline; a thread reads the documents' files to know their content.

    Raises:
        UserError: the documents are missing, or the dataset named by a path is another one.
    """
    if pipeline.dataset.path is not None:
        return _named(pipeline, pipeline.dataset.path)
    documents, tokenizer, settings = pipeline.documents, pipeline.tokenizer, pipeline.dataset
    assert documents is not None
    assert tokenizer is not None
    reader: Reader = documents.build()
    fingerprint = Fingerprint(stage="prepare")
    fingerprint.add_part("documents", documents)
    contents: dict[Split, Future[str]] = {}
    for split in reader.splits():
        reader.size(split)  # a file that is missing is told of before any work
        contents[split] = meanwhile(partial(reader.fingerprint, split))
    fingerprint.add_part("tokenizer", tokenizer)
    fingerprint.add("tokenizer.content", tokenizer.build().fingerprint())
    for split, content in contents.items():
        fingerprint.add(f"documents.{split}.content", content)
    if "valid" not in reader.splits():
        fingerprint.add("run.seed", pipeline.run.seed)
        fingerprint.add("dataset.valid_share", settings.valid_share)
    fingerprint.add("dataset.max_sample_length", settings.max_sample_length)
    fingerprint.add("dataset.min_sample_length", settings.min_sample_length)
    if settings.deduplicate:
        fingerprint.add("dataset.deduplicate", settings.deduplicate)
    if settings.ignore_meta_prob:
        fingerprint.add("run.seed", pipeline.run.seed)
        fingerprint.add("dataset.ignore_meta_prob", settings.ignore_meta_prob)
    return number("prepare", pipeline.datasets, fingerprint, _described, lambda _: "reuse")


def _described(directory: Path) -> Mapping[str, Any]:
    manifest = read_manifest(directory, kind="dataset")
    if missing := [name for name in ("fingerprint", "fields") if name not in manifest]:
        raise ArtefactError(f"{directory}: fst.json does not say {' and '.join(missing)}")
    return manifest


def _named(pipeline: Pipeline, path: Path) -> Plan:
    """Plan to use the dataset that `[dataset] path` names, if it is what the other tables say."""
    manifest = _described(path)
    said = Fingerprint()
    for part in pipeline.parts("documents", "tokenizer"):
        said.add_part(part.place.strip("[]"), part)
    if pipeline.documents is not None:
        reader: Reader = pipeline.documents.build()
        with suppress(DocumentError):  # a dataset may outlive its documents
            for split in reader.splits():
                said.add(f"documents.{split}.content", reader.fingerprint(split))
    if pipeline.tokenizer is not None:
        said.add("tokenizer.content", pipeline.tokenizer.build().fingerprint())
    for name in ("max_sample_length", "min_sample_length"):
        if name in pipeline.dataset.model_fields_set:
            said.add(f"dataset.{name}", getattr(pipeline.dataset, name))
    made = {name: value for name, value in manifest["fields"].items() if name in said.fields}
    if differing := said.differences(made):
        raise ArtefactError("\n  ".join([f"{path}: made from something else:", *differing]))
    return Plan("prepare", "reuse", path, Fingerprint(**manifest["fields"]))


def prepare(pipeline: Pipeline, plan: Plan, tell: Callable[[str], None]) -> Dataset:
    """Carry out the plan of a dataset and return it; `tell` gets lines for the user.

    Raises:
        DocumentError: a document cannot be read; nothing is left behind.
        UserError: there are no documents, all are too short, or the disk is too small.
        FstError: the disk got full; nothing is left behind.
    """
    if plan.action == "reuse":
        return Dataset.open(plan.directory)
    with locked(plan.directory.parent):
        if plan.directory.exists():
            raise UserError(f"{plan.directory}: another run has just made it. Run again.")
        with telling_full_disk(plan.directory.parent), publishing(plan.directory) as staging:
            if pipeline.executor is None:
                Preparation(pipeline, plan, staging, tell).make()
            else:
                prepare_in_parallel(pipeline, plan, staging, tell)
    return Dataset.open(plan.directory)


def prepare_shard(
    pipeline: Pipeline, plan: Plan, shard: Shard, tell: Callable[[str], None]
) -> Path:
    """Make one shard of the planned dataset, unless it is there, and return its directory.

    Raises:
        DocumentError: a document cannot be read; nothing is left behind.
        UserError: there are no documents, another run makes the shard, or the disk is too small.
        FstError: the disk got full; nothing is left behind.
    """
    parent = plan.directory.with_name(f"{plan.directory.name}.shards")
    directory = parent / f"{shard.index}-of-{shard.of}"
    with locked(parent / f".{directory.name}"):
        if directory.exists():
            if _is_shard_of(plan, directory):
                tell(f"prepare: up to date: {directory}")
                return directory
            # Under the name of what is unfinished: killed on the way, this would leave half a shard.
            aside = parent / f".{directory.name}.partial"
            shutil.rmtree(aside, ignore_errors=True)
            directory.rename(aside)
        with telling_full_disk(parent), publishing(directory) as staging:
            Preparation(pipeline, plan, staging, tell, shard).make()
    return directory


def _is_shard_of(plan: Plan, directory: Path) -> bool:
    try:
        made: str = read_manifest(directory, kind=SHARD)["fingerprint"]
    except ArtefactError:  # damaged: it is made again
        return False
    return made == plan.fingerprint


def join_shards(shards: Sequence[Path], target: Path) -> Dataset:
    """Join shards to the dataset that one run would have made.

    Raises:
        UserError: the target exists, or a split has no sample.
        ArtefactError: a shard is damaged, or they do not belong together.
        FstError: the disk got full; nothing is left behind.
    """
    with locked(target.parent):
        if target.exists():
            raise UserError(f"{target}: exists. Name a directory that does not.")
        with telling_full_disk(target.parent), publishing(target) as staging:
            join(shards, staging)
    return Dataset.open(target)
