"""The stages of a pipeline in their order; each does its work only where its result is not there yet."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NoReturn, get_args

from fst_core.artefacts.manifest import MANIFEST
from fst_core.dataset import Dataset
from fst_core.errors import UserError
from fst_core.pipeline.evaluate import Figures, evaluate, plan_evaluate
from fst_core.pipeline.prepare import plan_prepare, prepare
from fst_core.pipeline.process import leads, started_together
from fst_core.pipeline.run import Run
from fst_core.pipeline.train import MODEL, check_lengths, follow, plan_train, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fst_core.pipeline.pipeline import Pipeline
    from fst_core.pipeline.plan import Plan

__all__ = ["STAGES", "Outcome", "Stage", "explain", "run_stages"]

Stage = Literal["prepare", "train", "evaluate"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the stages have made; None for a stage that was not asked for."""

    dataset: Path
    model: Path | None = None
    figures: Figures | None = None


def explain(pipeline: Pipeline, until: Stage, *, fresh: bool = False) -> list[Plan]:
    """Return what each stage would do and why, without doing it.

    Raises:
        UserError: the pipeline cannot be carried out.
    """
    plans = _plans(pipeline, until, fresh=fresh)
    for plan in plans:
        plan.depends.settle()
    return plans


def _plans(pipeline: Pipeline, until: Stage, *, fresh: bool) -> list[Plan]:
    """Plan each stage; what the first depends on may still have to be found out."""
    _check(pipeline, until)
    plans = [plan_prepare(pipeline)]
    if until != "prepare":
        plans.append(plan_train(pipeline, plans[0].fingerprint, fresh=fresh))
        if plans[1].action != "reuse":  # a model that is there needs no device to train on
            assert pipeline.trainer is not None
            pipeline.trainer.build()
    if until == "evaluate" and pipeline.evaluators:
        plans.append(plan_evaluate(pipeline, plans[1]))
    return plans


def run_stages(
    pipeline: Pipeline, until: Stage, tell: Callable[[str], None], *, fresh: bool = False
) -> Outcome:
    """Bring the stages up to date, as far as `until`; `tell` gets lines for the user.

    A process that follows another one takes part in its training alone, and ends.

    Raises:
        UserError: the pipeline cannot be carried out; known before any work where possible.
        FstError: a stage failed.
    """
    if not leads():
        _follow(pipeline)
    if fresh and started_together():
        raise UserError(
            "--fresh: the processes started together must find the same run. Leave it out"
        )
    plans = _plans(pipeline, until, fresh=fresh)
    for plan in plans:
        if plan.action == "reuse":
            tell(f"{plan.stage}: up to date: {plan.directory}")
        elif plan.action == "make":
            for reason in plan.reasons:
                tell(f"{plan.stage}: {reason}")
    # What prepares belongs to no run yet: observers see the run that it would begin.
    directory = plans[1].directory if len(plans) > 1 else pipeline.runs
    run = Run(pipeline.run.name, directory, pipeline.run.seed)
    with _told(run, plans[0], plans[0].directory):
        dataset = prepare(pipeline, plans[0], tell)
    if until == "prepare":
        return Outcome(dataset.directory)
    with _told(run, plans[1], plans[1].directory / MODEL):
        model = train(pipeline, plans[1], dataset, run, tell)
    if len(plans) == 2:
        return Outcome(dataset.directory, model)
    with _told(run, plans[2], plans[2].directory):
        figures = evaluate(pipeline, plans[2], model, dataset, tell)
    return Outcome(dataset.directory, model, figures)


def _follow(pipeline: Pipeline) -> NoReturn:
    """Take part in the training that the first process leads, once it has prepared all, and end."""
    prepared, _ = explain(pipeline, "train")
    _wait((prepared.directory / MANIFEST).is_file)
    dataset = Dataset.open(prepared.directory)
    _wait(lambda: plan_train(pipeline, dataset.fingerprint).action != "make")
    plan = plan_train(pipeline, dataset.fingerprint)
    if plan.action == "continue":
        follow(pipeline, dataset, Run(pipeline.run.name, plan.directory, pipeline.run.seed))
    raise SystemExit(0)


def _wait(until: Callable[[], bool]) -> None:
    while not until():
        time.sleep(0.5)


def _check(pipeline: Pipeline, until: Stage) -> None:
    """Check what can be known before any work."""
    tables = [] if pipeline.dataset.path is not None else ["documents", "tokenizer"]
    tables += ["executor"] * (pipeline.executor is not None)
    if until != "prepare":
        tables += ["model", "trainer", "sampler", "engine"]
    if until == "evaluate" and pipeline.evaluators:
        tables.append("evaluate")
    pipeline.require(*tables)
    if until != "prepare":
        longest = pipeline.dataset.max_sample_length
        if pipeline.dataset.path is not None:
            longest = Dataset.open(pipeline.dataset.path).max_sample_length
        check_lengths(pipeline, longest)
        for part in pipeline.parts("sampler", "evaluate", "engine"):
            part.build()


@contextmanager
def _told(run: Run, plan: Plan, artefact: Path) -> Iterator[None]:
    """Tell observers of a stage that works; one that is up to date is silent."""
    if plan.action == "reuse":
        yield
        return
    run.tell("fst_stage_started", stage=plan.stage)
    try:
        yield
    except BaseException as error:
        run.tell("fst_stage_failed", stage=plan.stage, error=error)
        raise
    run.tell("fst_stage_finished", stage=plan.stage, artefact=artefact)
