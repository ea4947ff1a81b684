"""The stage `prepare`: documents -> tokenizer -> dataset."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import read_manifest
from fst_core.artefacts.publish import locked, publishing
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError, DocumentError, UserError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.plan import Plan, number
from fst_core.pipeline.preparation import Preparation
from fst_core.pipeline.space import telling_full_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fst_core.interfaces import Reader
    from fst_core.pipeline.pipeline import Pipeline

__all__ = ["plan_prepare", "prepare"]


def plan_prepare(pipeline: Pipeline) -> Plan:
    """Plan the dataset of a pipeline; reads the documents' files to know their content.

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
    for split in reader.splits():
        fingerprint.add(f"documents.{split}.content", reader.fingerprint(split))
    if "valid" not in reader.splits():
        fingerprint.add("run.seed", pipeline.run.seed)
        fingerprint.add("dataset.valid_share", settings.valid_share)
    fingerprint.add_part("tokenizer", tokenizer)
    fingerprint.add("tokenizer.content", tokenizer.build().fingerprint())
    fingerprint.add("dataset.max_sample_length", settings.max_sample_length)
    fingerprint.add("dataset.min_sample_length", settings.min_sample_length)
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
    return Plan("prepare", "reuse", path, manifest["fingerprint"], manifest["fields"])


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
            Preparation(pipeline, plan, staging, tell).make()
    return Dataset.open(plan.directory)
