"""The stage `train`: dataset -> model, in a numbered run directory."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.manifest import MANIFEST
from fst_core.artefacts.model import TOKENIZER, load_tokenizer, save_model
from fst_core.artefacts.provenance import record
from fst_core.artefacts.publish import locked, publishing
from fst_core.chat import ChatTemplate
from fst_core.errors import ArtefactError, SettingsError, UserError
from fst_core.pipeline.figures import finite, shown
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.plan import Action, Plan, number
from fst_core.pipeline.sampling import SampledRun, Sampling, write_samplers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from fst_core.dataset import Dataset
    from fst_core.interfaces import Model, Tokenizer, Trainer
    from fst_core.pipeline.pipeline import Pipeline
    from fst_core.pipeline.run import Run

__all__ = [
    "MODEL",
    "RUN",
    "check_lengths",
    "follow",
    "plan_train",
    "sampling_of",
    "train",
    "write_pipeline",
]

MODEL = "model"
"""The folder of a run that holds the exported model."""
RUN = "run.json"
"""The file of a run directory that says what the run is made from; written before it begins."""


def check_lengths(pipeline: Pipeline, max_sample_length: int) -> None:
    """Check that a sample fits the positions of the model.

    Raises:
        SettingsError: it does not.
    """
    assert pipeline.model is not None
    positions = pipeline.model.build().context_length
    if max_sample_length > positions:
        problem = (
            f"[dataset] max_sample_length = {max_sample_length}: more than the {positions} "
            f"positions of model '{pipeline.model.offer.name}'."
        )
        raise SettingsError(pipeline.file, [problem])


def plan_train(pipeline: Pipeline, dataset_fingerprint: str, *, fresh: bool = False) -> Plan:
    """Plan the run of a pipeline on a dataset; `fresh` begins a new one in any case."""
    assert pipeline.model is not None
    assert pipeline.trainer is not None
    fingerprint = Fingerprint(stage="train", dataset=dataset_fingerprint)
    fingerprint.add("run.seed", pipeline.run.seed)
    fingerprint.add_part("model", pipeline.model)
    fingerprint.add("model.content", pipeline.model.build().fingerprint())
    fingerprint.add_part("trainer", pipeline.trainer)
    for name in pipeline.trainer.offer.implementation().free:
        fingerprint.fields.pop(f"trainer.{name}", None)
    plan = number("train", pipeline.runs, fingerprint, _described, _state)
    if not fresh or plan.action == "make":
        return plan
    following = plan.directory.parent / str(int(plan.directory.name) + 1)
    while following.exists():
        following = following.parent / str(int(following.name) + 1)
    return Plan("train", "make", following, plan.depends, ("--fresh was given",))


def _described(directory: Path) -> Mapping[str, Any]:
    try:
        described = json.loads((directory / RUN).read_bytes())
        return {"fingerprint": described["fingerprint"], "fields": dict(described["fields"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{directory}: not a run: {error}") from None


def _state(directory: Path) -> Action:
    return "reuse" if (directory / MODEL / MANIFEST).is_file() else "continue"


def train(
    pipeline: Pipeline, plan: Plan, dataset: Dataset, run: Run, tell: Callable[[str], None]
) -> Path:
    """Carry out the plan of a run, and return its model's directory.

    Raises:
        UserError: the model does not fit the tokenizer.
        FstError: training failed; what was reached is kept, and the next call goes on from there.
    """
    if plan.action != "reuse":
        with locked(plan.directory.parent):
            if plan.action == "make":
                _begin(pipeline, plan)
            tell(f"train: {'goes on in' if plan.action == 'continue' else 'in'} {plan.directory}")
            _fit(pipeline, plan, dataset, run, tell)
    return plan.directory / MODEL


def follow(pipeline: Pipeline, dataset: Dataset, run: Run) -> None:
    """Take part in a training that another process leads, which keeps all of its results.

    Raises:
        FstError: training failed.
    """
    import torch

    assert pipeline.model is not None
    assert pipeline.trainer is not None
    tokenizer = load_tokenizer(dataset.directory, dataset.manifest)
    torch.manual_seed(run.seed)
    module = pipeline.model.build().build(tokenizer)
    pipeline.trainer.build().fit(
        module, dataset, tokenizer, run, lambda prompts: [""] * len(prompts)
    )


def sampling_of(
    pipeline: Pipeline,
    dataset: Dataset,
    trained: tuple[Model, nn.Module, Tokenizer],
    run: Run,
    tell: Callable[[str], None],
) -> Sampling:
    """Return what lets a model, its module and its tokenizer write while they train on a dataset."""
    chat = None
    if dataset.chat_template is not None:
        chat = ChatTemplate.to_learn(dataset.directory / TOKENIZER, trained[2])
    return Sampling(pipeline, trained, run, tell, chat)


def _begin(pipeline: Pipeline, plan: Plan) -> None:
    """Make the run's directory, with what it is made from."""
    if plan.directory.exists():
        raise UserError(f"{plan.directory}: another run has just begun there. Run again.")
    with publishing(plan.directory) as staging:
        described = {"schema": 1, "fingerprint": plan.fingerprint, "fields": plan.fields}
        (staging / RUN).write_text(json.dumps(described, indent=1) + "\n", "utf-8", newline="\n")
        write_pipeline(pipeline, staging)
        write_samplers(pipeline, staging)


def write_pipeline(pipeline: Pipeline, run: Path) -> None:
    """Write into a run's directory what the pipeline says; trainers may read it."""
    import tomli_w

    run.mkdir(exist_ok=True)
    with (run / "pipeline.toml").open("wb") as file:
        tomli_w.dump(pipeline.tables, file)


def _fit(
    pipeline: Pipeline, plan: Plan, dataset: Dataset, run: Run, tell: Callable[[str], None]
) -> None:
    import torch

    assert pipeline.model is not None
    assert pipeline.trainer is not None
    begun = time.perf_counter()
    tokenizer = load_tokenizer(dataset.directory, dataset.manifest)
    model: Model = pipeline.model.build()
    trainer: Trainer = pipeline.trainer.build()
    torch.manual_seed(run.seed)
    module = model.build(tokenizer)
    sampling = sampling_of(pipeline, dataset, (model, module, tokenizer), run, tell)
    sampled = SampledRun(run.name, run.directory, run.seed, run, sampling)
    figures = trainer.fit(module, dataset, tokenizer, sampled, sampling)
    with publishing(run.directory / MODEL) as staging:
        save_model(
            staging,
            model,
            module,
            dataset.directory / TOKENIZER,
            chat_template=dataset.chat_template,
            fingerprint=plan.fingerprint,
            fields=plan.fields,
            components={
                "model": record(pipeline.model.offer, pipeline.model.settings),
                "tokenizer": dataset.manifest["components"]["tokenizer"],
                "trainer": record(pipeline.trainer.offer, pipeline.trainer.settings),
                "samplers": [record(part.offer, part.settings) for part in pipeline.samplers],
            },
            made_from={
                "dataset": dataset.directory.parent.name,
                "number": dataset.directory.name,
                "fingerprint": dataset.fingerprint,
            },
            figures=finite(figures),
        )
    # Of an earlier session nobody knows how long it was.
    which = " of this session" if plan.action == "continue" else ""
    tell(
        f"train: {shown(figures)}, in {time.perf_counter() - begun:.0f} s{which} "
        f"-> {run.directory / MODEL}"
    )
