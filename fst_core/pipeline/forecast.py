"""A forecast: what a run will take, from a few steps of it that are made and thrown away."""

from __future__ import annotations

import gc
import io
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fst_core.artefacts.model import load_tokenizer
from fst_core.dataset import Dataset
from fst_core.errors import UserError
from fst_core.pipeline.prepare import plan_prepare, prepare
from fst_core.pipeline.run import Run
from fst_core.pipeline.train import check_lengths, sampling_of, write_pipeline
from fst_core.pipeline.trial import Ended, Pace, Trial, seen_once, steady
from fst_core.preparation.progress import silent
from fst_core.preparation.text_bytes import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fst_core.dataset import Samples
    from fst_core.documents import Document, Split
    from fst_core.interfaces import Model, Reader, Trainer
    from fst_core.pipeline.pipeline import Part, Pipeline

__all__ = ["Forecast", "forecast"]

_HEAD: Final = 2**20
"""Bytes of documents that stand for all where nothing is prepared."""
_VALIDATED: Final = 2**12
"""Ids of the samples to validate on that stand for all."""
_NEVER: Final = 10**9
"""A step that no trial comes to."""


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
    epochs: float | None
    """How often the run sees the corpus."""
    seconds_to_start: float
    """To build the model and to come to the first step."""
    seconds_per_step: float
    validations: int
    seconds_per_validation: float
    """With the texts that are sampled and the checkpoint that is begun."""
    tokens_per_second: float | None
    measured_steps: int
    memory: int | None
    """Bytes: the most that a few steps, a validation and a checkpoint needed, of the device or else of
    the process."""

    @property
    def tokens_per_parameter(self) -> float:
        """Ids of the corpus for each parameter."""
        return self.tokens / self.parameters

    @property
    def seconds_of_validations(self) -> float:
        """The time of all validations."""
        return self.validations * self.seconds_per_validation

    @property
    def seconds(self) -> float | None:
        """The time of the whole training."""
        if self.steps is None:
            return None
        steps = self.steps * self.seconds_per_step
        return self.seconds_to_start + steps + self.seconds_of_validations


def forecast(pipeline: Pipeline, tell: Callable[[str], None], seconds: float = 10.0) -> Forecast:
    """Build the model and train it for about some seconds, beside the run, and tell what a run takes.

    Raises:
        UserError: the pipeline cannot be carried out, or there is no place for a trial.
        FstError: the steps failed.
    """
    named = pipeline.dataset.path is not None
    tables = [] if named else ["documents", "tokenizer"]
    pipeline.require(*tables, "model", "trainer", "sampler", "engine")
    plan = plan_prepare(pipeline)
    with _place(pipeline.runs) as folder:
        if plan.action == "reuse":
            dataset = whole = Dataset.open(plan.directory)
        else:
            tell("plan: nothing is prepared yet: the first documents stand for all")
            dataset, whole = _head(pipeline, Path(folder) / "datasets")
        check_lengths(pipeline, dataset.max_sample_length)
        return _measured(pipeline, dataset, whole, Path(folder), seconds)


def _place(runs: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a folder on the disk of the runs: checkpoints are large, and take as long as there.

    Raises:
        UserError: nothing can be written there.
    """
    above = next(path for path in (runs, *runs.absolute().parents) if path.is_dir())
    try:
        return tempfile.TemporaryDirectory(prefix=".fst-plan-", dir=above)
    except OSError as error:
        raise UserError(f"{above}: nothing can be written here: {error.strerror}") from None


def _head(pipeline: Pipeline, root: Path) -> tuple[Dataset, Dataset]:
    """Prepare the first documents; return their dataset, and one as large as that of all would be."""
    assert pipeline.documents is not None
    head = _Head(pipeline.documents)
    settings = pipeline.dataset.model_copy(update={"root": root, "name": "head"})
    shortened = replace(pipeline, documents=head, dataset=settings)  # type: ignore[arg-type]  # it is what a Part is
    dataset = prepare(shortened, plan_prepare(shortened), silent)
    reader: Reader = pipeline.documents.build()
    times = {split: head.share(reader, split) for split in reader.splits()}
    train = _stretched(dataset.train, times["train"])
    valid = _stretched(dataset.valid, times.get("valid", times["train"]))
    return dataset, replace(dataset, train=train, valid=valid)


def _stretched(samples: Samples, times: float) -> Samples:
    """Return so many times the samples, of the same lengths; their ids take no memory."""
    if not len(samples):
        return samples
    lengths = np.resize(samples.lengths(), round(len(samples) * times))
    ends = np.cumsum(lengths)
    corpus = np.broadcast_to(samples.corpus[:1], (int(ends[-1]),))
    return replace(samples, corpus=corpus, starts=ends - lengths, loss=None)


class _Head:
    """A pipeline's documents, of which the first are read."""

    def __init__(self, part: Part) -> None:
        self.place = part.place
        self.offer = part.offer
        self.settings = part.settings
        self._part = part
        self._taken: dict[Split, int] = {}
        self._ended: set[Split] = set()

    def share(self, reader: Reader, split: Split) -> float:
        """Return how many times the documents that were read all of them are."""
        if split in self._ended or not self._taken.get(split):
            return 1.0
        size = reader.size(split)
        if size is None:
            size = sum(_size(document) for document in reader.read(split))
        return max(1.0, size / self._taken[split])

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
                self._ended.add(split)
            self._taken[split] = taken

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
    """Train a new module on the dataset twice for a while; `whole` is what the run would train on."""
    import torch

    assert pipeline.model is not None
    assert pipeline.trainer is not None
    trainer: Trainer = pipeline.trainer.build()
    name, seed = pipeline.run.name, pipeline.run.seed
    run = Run(name, folder / "run", seed)
    steps = trainer.planned_steps(whole, run)
    begun = time.perf_counter()
    tokenizer = load_tokenizer(dataset.directory, dataset.manifest)
    model: Model = pipeline.model.build()
    torch.manual_seed(seed)
    module = model.build(tokenizer)
    built = time.perf_counter() - begun
    counts = [(p.numel(), p.requires_grad) for p in module.parameters()]
    short = replace(dataset, valid=_first(dataset.valid, _VALIDATED))

    def train(trial: Trial, every: int) -> None:
        write_pipeline(pipeline, trial.directory)
        sampling = sampling_of(pipeline, short, (model, module, tokenizer), trial, silent)
        with suppress(Ended):
            trainer.for_trial(every).fit(module, short, tokenizer, trial, sampling)

    unseen = io.StringIO()  # what the trainer shows of validations and samples is not a run's
    with redirect_stdout(unseen), redirect_stderr(unseen):
        rehearsal = Trial(name, folder / "first", seed, seen_once, time.perf_counter())
        train(rehearsal, 1)
        gc.collect()  # what the first training held must not count as the second one's
        trial = Trial(name, folder / "second", seed, steady(seconds), time.perf_counter())
        train(trial, _NEVER)
    pace = trial.pace()
    validation, rest = rehearsal.validation(pace.step)
    validation *= whole.valid.tokens / max(1, short.valid.tokens)

    def validations(steps: int) -> tuple[int, float]:
        """Return how many there are, and the seconds of each."""
        number, share = trainer.planned_validations(whole, run, steps)
        return number, share * validation + rest

    # Of trainers that have a limit of time.
    minutes = getattr(pipeline.trainer.settings, "minutes", None)
    if steps is None and minutes is not None:
        alone = max(1, round(60 * minutes / pace.step))
        number, each = validations(alone)
        steps = max(1, round(60 * minutes / (pace.step + number / alone * each)))
    number, each = (0, validation + rest) if steps is None else validations(steps)
    return Forecast(
        parameters=sum(count for count, _ in counts),
        trained=sum(count for count, trained in counts if trained),
        tokens=whole.train.tokens,
        estimated=whole is not dataset,
        steps=steps,
        epochs=_epochs(steps, pace, dataset, whole),
        seconds_to_start=built + rehearsal.start(pace.step),
        seconds_per_step=pace.step,
        validations=number,
        seconds_per_validation=each,
        tokens_per_second=pace.tokens / pace.seconds if pace.tokens else None,
        measured_steps=pace.steps,
        memory=_memory(),
    )


def _first(samples: Samples, tokens: int) -> Samples:
    """Return the first samples, of about so many ids in all."""
    ends = np.cumsum(samples.lengths())
    number = int(np.searchsorted(ends, tokens)) + 1
    if number >= len(samples):
        return samples
    end = ends[number - 1]
    loss = None if samples.loss is None else samples.loss[:end]
    return replace(samples, corpus=samples.corpus[:end], starts=samples.starts[:number], loss=loss)


def _epochs(steps: int | None, pace: Pace, dataset: Dataset, whole: Dataset) -> float | None:
    """Return how often so many steps see the corpus, by the ids that they predict."""
    if steps is None or not pace.tokens:
        return None
    samples = dataset.train
    # The first id of each sample is predicted by nothing.
    targets = float(samples.tokens - len(samples))
    if samples.loss is not None:
        targets = float(samples.loss.sum(dtype=np.int64) - samples.loss[samples.starts].sum())
    targets *= len(whole.train) / len(samples)
    return steps * pace.tokens / pace.steps / max(1.0, targets)


def _memory() -> int | None:
    """Return the most bytes that were needed so far: of CUDA where it is used, else of this process."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":  # it does not say
        return None
    # Linux's `getrusage` counts the parent too, as it was before `exec`; this file does not.
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(status.read_text("utf-8").partition("VmHWM:")[2].split()[0])
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used
