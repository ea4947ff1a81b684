"""The hooks of FST: what a plugin may offer, and what it may watch.

A plugin is an entry point of group `fst` that names a module with functions marked `hookimpl`.
That module imports `fst_core` alone: the heavy parts stand behind import strings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fst_core.components import Component
    from fst_core.pipeline.run import Run

hookspec = pluggy.HookspecMarker("fst")
hookimpl = pluggy.HookimplMarker("fst")
"""Marks a function of a plugin as the implementation of the hook of the same name."""


# What a plugin offers. Every hook returns components; nothing they name is imported yet.


@hookspec
def fst_readers() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Document readers: implementations of `fst_core.Reader`."""


@hookspec
def fst_tokenizers() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Tokenizers: implementations of `fst_core.Tokenizer`."""


@hookspec
def fst_models() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Models: implementations of `fst_core.Model`."""


@hookspec
def fst_trainers() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Trainers: implementations of `fst_core.Trainer`."""


@hookspec
def fst_samplers() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Samplers: implementations of `fst_core.Sampler`."""


@hookspec
def fst_evaluators() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Evaluators: implementations of `fst_core.Evaluator`."""


@hookspec
def fst_engines() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Engines: implementations of `fst_core.Engine`."""


@hookspec
def fst_executors() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Executors: implementations of `fst_core.Executor`."""


@hookspec
def fst_frontends() -> Iterable[Component]:  # type: ignore[empty-body]  # a specification
    """Frontends: implementations of `fst_core.Frontend`."""


# What a plugin may watch. An exception in one of these is logged, and the run goes on.


@hookspec
def fst_stage_started(run: Run, stage: str) -> None:
    """A stage (prepare, train or evaluate) begins to work; an up-to-date stage is silent."""


@hookspec
def fst_stage_finished(run: Run, stage: str, artefact: Path) -> None:
    """A stage has published what it made: a dataset, a model, or an evaluation.json."""


@hookspec
def fst_stage_failed(run: Run, stage: str, error: BaseException) -> None:
    """A stage ended with an error, which is raised again after this hook."""


@hookspec
def fst_metrics(run: Run, step: int, metrics: Mapping[str, float]) -> None:
    """The trainer reports figures of an optimizer step."""
