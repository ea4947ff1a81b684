"""The stage `evaluate`: model + dataset -> figures, in `evaluation.json` beside the model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import read_manifest
from fst_core.artefacts.model import load_model, tokenizer_digest
from fst_core.artefacts.publish import write_whole
from fst_core.errors import ArtefactError, FstError
from fst_core.pipeline.figures import finite, shown
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.gates import unmet
from fst_core.pipeline.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from fst_core.artefacts import LoadedModel
    from fst_core.dataset import Dataset
    from fst_core.interfaces import Engine, Evaluator
    from fst_core.pipeline.pipeline import Part, Pipeline

__all__ = ["EVALUATION", "Figures", "engine_over", "evaluate", "figures_of", "plan_evaluate"]

Figures = dict[str, dict[str, float | None]]
"""Figures by evaluator and name; None where one has no meaning for the model."""
EVALUATION = "evaluation.json"


def plan_evaluate(pipeline: Pipeline, trained: Plan) -> Plan:
    """Plan the evaluation of a run's model."""
    fingerprint = Fingerprint(stage="evaluate", model=trained.fingerprint)
    for part in pipeline.evaluators:
        fingerprint.add_part(part.place.strip("[]"), part)
    target = trained.directory / EVALUATION
    if trained.action != "reuse":
        return Plan("evaluate", "make", target, fingerprint, ("the model has to be made first",))
    try:
        earlier = json.loads(target.read_bytes())
        same, before = earlier["fingerprint"] == fingerprint.digest, dict(earlier["fields"])
        dict(earlier["figures"])
    except (OSError, ValueError, KeyError, TypeError):
        return Plan("evaluate", "make", target, fingerprint, ("nothing has been measured yet",))
    if same:
        return Plan("evaluate", "reuse", target, fingerprint)
    changed = fingerprint.differences(before)
    return Plan("evaluate", "make", target, fingerprint, tuple(f"changed: {c}" for c in changed))


def evaluate(
    pipeline: Pipeline, plan: Plan, model: Path, dataset: Dataset, tell: Callable[[str], None]
) -> Figures:
    """Carry out the plan of an evaluation and return its figures.

    Raises:
        ArtefactError: the model and the dataset do not go together.
        FstError: a figure does not meet a bound that the pipeline sets; all of them are written.
    """
    figures: Figures
    if plan.action == "reuse":
        figures = json.loads(plan.directory.read_bytes())["figures"]
    else:
        figures = figures_of(pipeline.evaluators, model, dataset, tell)
    failed = [
        line
        for part, (name, measured) in zip(pipeline.evaluators, figures.items(), strict=True)
        for line in unmet(part.settings, measured, name)
    ]
    if plan.action != "reuse":
        described = {"fingerprint": plan.fingerprint, "fields": plan.fields, "figures": figures}
        described |= {"unmet": failed} if failed else {}
        write_whole(plan.directory, json.dumps(described, indent=1).encode() + b"\n")
    if failed:
        raise FstError(f"evaluate: {'; '.join(failed)}: {model} is not served")
    return figures


def engine_over(model: LoadedModel) -> Engine:
    """Return an engine over a loaded model, for an evaluator that generates.

    It is `local`, with the samplers that the model was watched with in training, or `standard`; the
    module stays on its device. Whoever asked for it closes it.

    Raises:
        UserError: something that it needs is not installed.
    """
    from fst_core.pipeline.pipeline import check_pipeline
    from fst_core.pipeline.target import find_target

    if "samplers" in model.manifest.get("components", {}):
        pipeline = find_target(model.directory).pipeline
    else:
        tables = {"engine": {"use": "local"}, "sampler": [{"use": "standard"}]}
        pipeline = check_pipeline(str(model.directory), tables)
    pipeline.require("engine", "sampler")
    assert pipeline.engine is not None
    engine: Engine = pipeline.engine.build()
    return engine.for_module(
        model.module,
        model.tokenizer,
        [(part.build(), part.settings) for part in pipeline.samplers],
        model.context_length,
        supports_cache=model.model_class.supports_cache,
    )


def figures_of(
    evaluators: Iterable[Part], directory: Path, dataset: Dataset, tell: Callable[[str], None]
) -> Figures:
    """Measure a saved model on a dataset.

    Raises:
        ArtefactError: they were made with different tokenizers.
    """
    if tokenizer_digest(read_manifest(directory, "model")) != tokenizer_digest(dataset.manifest):
        raise ArtefactError(
            f"{directory} and {dataset.directory} were made with different tokenizers: "
            "their ids mean different texts"
        )
    model = load_model(directory)
    figures: Figures = {}
    for part in evaluators:
        evaluator: Evaluator = part.build()
        measured = finite(evaluator.evaluate(model, dataset))
        figures[_free(part.offer.name, figures)] = measured
        tell(f"evaluate: {part.offer.name}: {shown(measured)}")
    return figures


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name, numbered if an evaluator of that name has been there before."""
    same = sum(1 for other in taken if other.partition("#")[0] == name)
    return f"{name}#{same + 1}" if same else name
