"""Evaluators of models; and the run card, kept up to date while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fst_core.pipeline.run import Run


@hookimpl
def fst_evaluators() -> Iterator[Component]:
    """Offer the evaluators."""
    yield Component(
        "perplexity",
        f"{__name__}.perplexity:PerplexityEvaluator",
        "Loss, perplexity and bits per byte on the held-out documents.",
        settings=f"{__name__}.settings:PerplexitySettings",
        needs=("torch",),
    )
    yield Component(
        "memorisation",
        f"{__name__}.memorisation:MemorisationEvaluator",
        "How much of what a model writes stands word for word in its training documents.",
        settings=f"{__name__}.settings:MemorisationSettings",
        needs=("torch",),
    )
    yield Component(
        "lm-eval",
        f"{__name__}.harness:HarnessEvaluator",
        "Tasks of EleutherAI's Language Model Evaluation Harness.",
        settings=f"{__name__}.settings:HarnessSettings",
        needs=("torch",),
    )


@hookimpl
def fst_metrics(run: Run, step: int, metrics: Mapping[str, float]) -> None:
    """Keep what the trainer reports: `fst runs`, `fst compare` and the run card read it."""
    from fst_core.pipeline.runs import record_metrics

    record_metrics(run.directory, step, metrics)


@hookimpl
def fst_stage_finished(run: Run, stage: str) -> None:
    """Write the run card."""
    from fst_core.report.card import write_report

    if stage in {"train", "evaluate"}:
        write_report(run.directory)


@hookimpl
def fst_stage_failed(run: Run, stage: str, error: BaseException) -> None:
    """Write the run card also of a run that went wrong, or that met no gate."""
    from fst_core.errors import FstError
    from fst_core.report.card import write_report

    if isinstance(error, FstError) and run.directory.is_dir() and stage in {"train", "evaluate"}:
        write_report(run.directory, str(error) if stage == "train" else None)
