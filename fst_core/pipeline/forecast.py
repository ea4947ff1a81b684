"""A forecast: what a run will take, from a few steps of it that are made and thrown away."""

from __future__ import annotations

import io
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.artefacts.model import load_tokenizer
from fst_core.dataset import Dataset
from fst_core.errors import FstError
from fst_core.pipeline.prepare import plan_prepare, prepare
from fst_core.pipeline.run import Run
from fst_core.pipeline.train import check_lengths
from fst_core.preparation.progress import silent
from fst_core.preparation.text_bytes import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fst_core.documents import Document, Split
    from fst_core.interfaces import Model, Reader, Trainer
    from fst_core.pipeline.pipeline import Part, Pipeline

__all__ = ["Forecast", "forecast"]

_WARM: Final = 2
"""Steps at the beginning that are not measured: memory is taken in them."""
_STEPS: Final = 8
"""The fewest steps that are measured."""
_PATIENCE: Final = 3
"""So many times the wanted seconds are spent at the most."""
_HEAD: Final = 2**20
"""Bytes of documents that stand for all where nothing is prepared."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take; None where it cannot be known."""

    parameters: int
    trained: int
    """Parameters that change."""
    tokens: int
    """Ids of the corpus to train on."""
    estimated: bool
    """Whether the corpus is estimated, because no dataset is prepared."""
    steps: int | None
    seconds_per_step: float
    tokens_per_second: float | None
    measured_steps: int
    memory: int | None
    """Bytes: the most that the measured steps needed, of the device or else of the process."""

    @property
    def tokens_per_parameter(self) -> float:
        """Ids of the corpus for each parameter."""
        return self.tokens / self.parameters

    @property
    def epochs(self) -> float | None:
        """How often the run sees the corpus."""
        if self.seconds is None or self.tokens_per_second is None:
            return None
        return self.seconds * self.tokens_per_second / self.tokens

    @property
    def seconds(self) -> float | None:
        """The time of all steps."""
        return None if self.steps is None else self.steps * self.seconds_per_step


def forecast(pipeline: Pipeline, tell: Callable[[str], None], seconds: float = 10.0) -> Forecast:
    """Build the model and train it for about some seconds, beside the run, and tell what a run takes.

    Raises:
        UserError: the pipeline cannot be carried out.
        FstError: the steps failed.
    """
    named = pipeline.dataset.path is not None
    pipeline.require(*([] if named else ["documents", "tokenizer"]), "model", "trainer")
    plan = plan_prepare(pipeline)
    with tempfile.TemporaryDirectory() as folder:
        if plan.action == "reuse":
            dataset = whole = Dataset.open(plan.directory)
        else:
            tell("plan: nothing is prepared yet: the first documents stand for all")
            dataset, whole = _head(pipeline, Path(folder) / "datasets")
        check_lengths(pipeline, dataset.max_sample_length)
        return _measured(pipeline, dataset, whole, Path(folder), seconds)


def _head(pipeline: Pipeline, root: Path) -> tuple[Dataset, Dataset]:
    """Prepare the first documents; return their dataset, and one as large as that of all would be."""
    assert pipeline.documents is not None
    head = _Head(pipeline.documents)
    settings = pipeline.dataset.model_copy(update={"root": root, "name": "head"})
    shortened = replace(pipeline, documents=head, dataset=settings)  # type: ignore[arg-type]  # it is what a Part is
    dataset = prepare(shortened, plan_prepare(shortened), silent)
    return dataset, _stretched(dataset, head.share(pipeline.documents.build()))


def _stretched(dataset: Dataset, times: float) -> Dataset:
    """Return a dataset of so many times the samples, of the same lengths; its ids take no memory."""
    lengths = np.resize(dataset.train.lengths(), round(len(dataset.train) * times))
    ends = np.cumsum(lengths)
    corpus = np.broadcast_to(dataset.train.corpus[:1], (int(ends[-1]),))
    return replace(dataset, train=replace(dataset.train, corpus=corpus, starts=ends - lengths))


class _Head:
    """A pipeline's documents, of which the first are read."""

    def __init__(self, part: Part) -> None:
        self.place = part.place
        self.offer = part.offer
        self.settings = part.settings
        self._part = part
        self._taken = 0
        self._ended = False

    def share(self, reader: Reader) -> float:
        """Return how many times the documents that were read all of them are."""
        if self._ended:
            return 1.0
        size = reader.size("train")
        if size is None:
            size = sum(_size(document) for document in reader.read("train"))
        return max(1.0, size / self._taken)

    def build(self) -> Any:
        """Return a reader that ends early; everything else is the reader's own."""
        reader: Reader = self._part.build()
        whole = reader.read

        def read(split: Split) -> Iterator[Document]:
            taken = 0
            for document in whole(split):
                yield document
                taken += _size(document)
                if taken >= _HEAD:
                    break
            else:
                self._ended |= split == "train"
            if split == "train":
                self._taken = taken

        reader.read = read  # type: ignore[method-assign]  # this instance alone reads less
        reader.size = lambda split: None  # type: ignore[method-assign]  # noqa: ARG005  # of what it reads
        return reader


def _size(document: Document) -> int:
    """Return the bytes of a document's text, or of its turns."""
    turns = document.messages or ()
    return size_of(document.text or "") + sum(size_of(turn.content) for turn in turns)


def _measured(
    pipeline: Pipeline, dataset: Dataset, whole: Dataset, folder: Path, seconds: float
) -> Forecast:
    """Train a new module on the dataset for a while; `whole` is what the run would train on."""
    import torch

    assert pipeline.model is not None
    assert pipeline.trainer is not None
    tokenizer = load_tokenizer(dataset.directory, dataset.manifest)
    model: Model = pipeline.model.build()
    trainer: Trainer = pipeline.trainer.build()
    trial = _Trial(pipeline.run.name, folder / "run", pipeline.run.seed, seconds)
    trial.directory.mkdir()
    steps = trainer.planned_steps(whole, trial)
    torch.manual_seed(pipeline.run.seed)
    module = model.build(tokenizer)
    counts = [(p.numel(), p.requires_grad) for p in module.parameters()]
    unseen = io.StringIO()  # what the trainer shows of validations and samples is not a run's
    with suppress(_Enough), redirect_stdout(unseen), redirect_stderr(unseen):
        trainer.fit(module, dataset, tokenizer, trial, lambda prompts: ["" for _ in prompts])
    pace = trial.pace()
    minutes = getattr(
        pipeline.trainer.settings, "minutes", None
    )  # of trainers that have a limit of time
    if steps is None and minutes is not None:
        steps = max(1, round(60 * minutes * pace.steps / pace.seconds))
    return Forecast(
        parameters=sum(count for count, _ in counts),
        trained=sum(count for count, trained in counts if trained),
        tokens=whole.train.tokens,
        estimated=whole is not dataset,
        steps=steps,
        seconds_per_step=pace.seconds / pace.steps,
        tokens_per_second=pace.tokens / pace.seconds if pace.tokens else None,
        measured_steps=pace.steps,
        memory=_memory(),
    )


class _Enough(BaseException):
    """Enough steps are measured; no trainer takes this for an error of its own."""


@dataclass(frozen=True, slots=True)
class _Report:
    """When a trainer reported what."""

    time: float
    step: int
    metrics: Mapping[str, float]

    @property
    def is_validation(self) -> bool:
        return "valid_loss" in self.metrics


@dataclass(frozen=True, slots=True)
class _Pace:
    """Steps, the seconds that they took, and the ids that they trained on (0: not reported)."""

    steps: int
    seconds: float
    tokens: float


@dataclass(frozen=True, slots=True)
class _Trial(Run):
    """A run that observers hear nothing of, and that ends when enough is measured."""

    seconds: float
    begun: float = field(default_factory=time.perf_counter)
    reports: list[_Report] = field(default_factory=list)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the time."""
        now = time.perf_counter()
        self.reports.append(_Report(now, step, dict(metrics)))
        warm = self.reports[min(_WARM, len(self.reports)) - 1]
        measured, elapsed = step - warm.step, now - warm.time
        if (measured >= _STEPS and elapsed >= self.seconds) or elapsed >= _PATIENCE * self.seconds:
            raise _Enough

    def tell(self, hook: str, **arguments: Any) -> None:
        """Tell nobody."""

    def pace(self) -> _Pace:
        """Return how fast the steps were, those with a validation before or after them left out.

        Raises:
            FstError: the trainer reported nothing.
        """
        if not self.reports:
            raise FstError("the trainer reported no step that could be measured")
        steps, seconds, tokens = 0, 0.0, 0.0
        for one, next_one in pairwise(self.reports[_WARM - 1 :]):
            if next_one.step > one.step and not (one.is_validation or next_one.is_validation):
                took = next_one.time - one.time
                steps += next_one.step - one.step
                seconds += took
                tokens += took * next_one.metrics.get("tokens_per_second", 0.0)
        if not steps:  # it ended before: what there is has to do
            last = self.reports[-1]
            return _Pace(max(last.step, 1), last.time - self.begun, 0.0)
        return _Pace(steps, seconds, tokens)


def _memory() -> int | None:
    """Return the most bytes that were needed so far: of CUDA where it is used, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":  # it does not say
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used
