"""The run card `report.md`: what came of a run in five sentences, then plots, figures and samples."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fst_core.artefacts.manifest import MANIFEST, read_manifest
from fst_core.artefacts.model import load_tokenizer
from fst_core.artefacts.publish import numbered, write_whole
from fst_core.dataset import Dataset
from fst_core.errors import FstError
from fst_core.pipeline.figures import shown_value
from fst_core.pipeline.runs import PastRun
from fst_core.report.baselines import baselines, predicted
from fst_core.report.plots import Points, line_plot
from fst_core.report.state import record_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["REPORT", "write_report"]

REPORT: Final = "report.md"
_FOLDER: Final = "report"
"""The folder of a run that holds the plots."""
_BASELINES: Final = "baselines.json"
_PLOTTED: Final = ("learning_rate", "gradient_norm", "tokens_per_second")
"""What is plotted beside the losses, if the trainer reports it."""
_NOTICEABLE: Final = 0.005
"""The share of a loss by which it has to change before a sentence says so."""
_OVERFITTED: Final = 0.02
"""The share by which the held-out loss has to rise again: less is the noise of validations."""
_FEW: Final = 50
"""Steps below which nothing can be said but that there have to be more."""
_NAMES: Final = {
    "loss": "training loss at the end",
    "valid_loss": "valid loss of the best validation",
}
"""Figures that the table names otherwise."""


def write_report(directory: Path, error: str | None = None) -> Path:
    """Write the run card of a run as it is now, and return its path; `error` is what ended it."""
    if error:
        record_error(directory, error)
    run = PastRun(directory)
    card = _Card(run, _held_out(run), error)
    (directory / _FOLDER).mkdir(exist_ok=True)
    plots = dict(card.plots())
    for name, plot in plots.items():
        write_whole(directory / _FOLDER / name, plot.encode())
    parts = [f"# Run {run.name}/{run.number}", " ".join(card.sentences()), *card.warnings()]
    parts += [f"![{name.partition('.')[0]}]({_FOLDER}/{name})" for name in plots]
    parts += card.sections()
    write_whole(directory / REPORT, ("\n\n".join(parts) + "\n").encode())
    return directory / REPORT


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """What a run's dataset says of the text that the model was not trained on."""

    text_bytes: int
    targets: int
    """The ids that a model is measured on."""
    train_tokens: int
    chance: float
    """The loss of guessing, in nats an id."""
    baselines: Mapping[str, float]
    """Bits per byte by name."""

    def bits_per_byte(self, loss: float) -> float:
        """Return a loss, in nats an id, as bits a byte."""
        return loss * self.targets / math.log(2) / self.text_bytes

    def loss(self, bits_per_byte: float) -> float:
        """Return bits a byte as a loss, in nats an id."""
        return bits_per_byte * self.text_bytes * math.log(2) / self.targets


def _held_out(run: PastRun) -> _HeldOut | None:
    """Return what the run's dataset says; None if it is no longer there, or holds nothing out."""
    settings = run.settings
    named = settings.get("dataset.path")
    root = Path(settings.get("dataset.root", "data/datasets"))
    name = settings.get("dataset.name", settings.get("run.name", run.name))
    for directory in [Path(named)] if named else reversed(numbered(root / str(name))):
        try:
            if read_manifest(directory, "dataset").get("fingerprint") == settings.get("dataset"):
                return _measured(run, Dataset.open(directory))
        except FstError:
            continue
    return None


def _measured(run: PastRun, dataset: Dataset) -> _HeldOut | None:
    targets = int(predicted(dataset.valid).sum())
    if not targets or not dataset.valid.text_bytes:
        return None
    kept = run.directory / _FOLDER / _BASELINES
    tokenizer = load_tokenizer(dataset.directory, dataset.manifest)
    try:
        found = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        found = baselines(dataset, tokenizer)
        kept.parent.mkdir(exist_ok=True)
        write_whole(kept, json.dumps(found).encode() + b"\n")
    return _HeldOut(
        dataset.valid.text_bytes,
        targets,
        dataset.train.tokens,
        math.log(tokenizer.vocab_size),
        dict(sorted(found.items(), key=lambda item: -item[1])),
    )


class _Card:
    """The parts of a run card."""

    def __init__(self, run: PastRun, held_out: _HeldOut | None, error: str | None) -> None:
        self.run = run
        self.held_out = held_out
        self.error = error
        self.losses = self._series("loss")
        self.valid = self._series("valid_loss")

    def _series(self, name: str) -> Points:
        return [(step, m[name]) for step, m in self.run.metrics.items() if name in m]

    def sentences(self) -> Iterator[str]:
        """Yield the five sentences."""
        yield self._learned()
        yield self._overfitted()
        yield self._compared()
        yield self._next()
        yield self._cost()

    def warnings(self) -> Iterator[str]:
        """Yield what ended the run early, and what keeps its model from being served."""
        if self.error:
            yield f"**It stopped with an error:** {self.error}"
        for line in self.run.unmet:
            yield f"**A gate was not met:** {line}"

    def _ends(self) -> tuple[float, float] | None:
        """Return the training loss at the beginning and at the end, each the mean of a twentieth."""
        if len(self.losses) < 2:
            return None
        return self.run.losses

    @property
    def _has_learned(self) -> bool:
        ends = self._ends()
        return ends is not None and ends[1] < ends[0] * (1 - _NOTICEABLE)

    @property
    def _best(self) -> tuple[float, float] | None:
        """The step and the loss of the best validation."""
        return min(self.valid, key=lambda point: point[1], default=None)

    @property
    def _has_overfitted(self) -> bool:
        return self._best is not None and self.valid[-1][1] > self._best[1] * (1 + _OVERFITTED)

    @property
    def _patience(self) -> int | None:
        """The validations that were no better than the best, if that many ended the run."""
        patience = self.run.settings.get("trainer.patience")
        if not isinstance(patience, int) or self._best is None or not self.run.manifest:
            return None
        worse = sum(step > self._best[0] for step, _ in self.valid)
        return worse if worse >= patience else None

    @property
    def _epochs(self) -> float | None:
        """How often the run saw the documents."""
        tokens = self.run.figures.get("tokens")
        return tokens / self.held_out.train_tokens if tokens and self.held_out else None

    def _learned(self) -> str:
        ends = self._ends()
        if ends is None:
            return "Whether it learned is not known: its trainer reported no losses."
        guessing = f"; guessing would have {self.held_out.chance:.2f}" if self.held_out else ""
        if self._has_learned:
            return (
                f"It learned: the training loss fell from {ends[0]:.2f} to {ends[1]:.2f} "
                f"nats a token{guessing}."
            )
        return (
            f"It did not learn: the training loss was {ends[0]:.2f} nats a token at the "
            f"beginning and {ends[1]:.2f} at the end{guessing}."
        )

    def _overfitted(self) -> str:
        best, ends = self._best, self._ends()
        if best is None:
            return "Whether it overfitted is not known: nothing was validated."
        ended = ""
        if self._patience is not None:
            ended = f" Early stopping ended it: {self._patience} validations were no better."
        last_step, last = self.valid[-1]
        rise = last / best[1] - 1
        if self._has_overfitted:
            return (
                f"It overfitted: the loss on held-out text was lowest at step {best[0]:,}, "
                f"{best[1]:.2f}, and was {last:.2f} at step {last_step:,}, "
                f"more than {_OVERFITTED:.0%} above.{ended}"
            )
        gap = best[1] - ends[1] if ends else 0.0
        apart = f", {gap:.2f} above the loss in training" if gap > 0.1 else ""
        after = "did not rise after it"
        if rise > _NOTICEABLE:
            after = f"rose by {rise:.1%} after it: less than {_OVERFITTED:.0%} tells nothing"
        return (
            f"It did not overfit: the loss on held-out text was {best[1]:.2f} at the best "
            f"validation, at step {best[0]:,}{apart}, and {after}.{ended}"
        )

    @property
    def _bits(self) -> float | None:
        """Bits per byte as measured, or from the best validation."""
        if self.run.bits_per_byte is not None or self.held_out is None or self._best is None:
            return self.run.bits_per_byte
        return self.held_out.bits_per_byte(self._best[1])

    def _compared(self) -> str:
        bits = self._bits
        if bits is None:
            return "How it compares is not known: there are no bits per byte of held-out text."
        said = f"It predicts held-out text in {bits:.3f} bits a byte"
        if self.held_out is None or not self.held_out.baselines:
            return f"{said}; there is nothing to compare it with."
        better: list[str] = []
        worse: list[str] = []
        for name, other in self.held_out.baselines.items():
            (better if bits < other else worse).append(f"{name} ({other:.3f})")
        told = [f"better than {_joined(better)}"] * bool(better)
        told += [f"not better than {_joined(worse)}"] * bool(worse)
        return f"{said}, {' but '.join(told)}."

    def _next(self) -> str:
        if self.error and "finite" not in self.error and "nan" not in self.error.lower():
            return "Next, do away with that error and run again: what was reached is kept."
        if self.error:
            return "Next, lower learning_rate or raise num_warmup_steps."
        steps, epochs = self.run.figures.get("steps"), self._epochs
        longer = f"Next, {'raise patience and ' * (self._patience is not None)}train for more steps"
        if steps is not None and steps < _FEW:
            return f"{longer}: {steps:,.0f} are too few to tell what it can learn."
        if not self._has_learned:
            return (
                "Next, look at the samples (`fst dataset show`), then raise the learning rate "
                "or train for more steps."
            )
        if self._has_overfitted:
            return (
                "Next, add documents, raise dropout or take a smaller model: more steps "
                "alone would not help."
            )
        if epochs is not None and epochs < 1:
            return f"{longer}: it has not yet seen all documents ({epochs:.2g} epochs)."
        falling = self._still_falling()
        if falling is None or falling > _NOTICEABLE:
            by = "" if falling is None else f": the loss still fell by {falling:.1%} at the end"
            return f"{longer}{by}."
        return "Next, take a larger model or add documents: the loss no longer falls."

    def _still_falling(self) -> float | None:
        """Return by which share the loss fell over the last quarter of validations, or of steps."""
        points = self.valid if len(self.valid) > 3 else self.losses
        quarter = len(points) // 4
        if not quarter:
            return None
        values = [value for _, value in points]
        before = sum(values[-2 * quarter : -quarter]) / quarter
        return 1 - sum(values[-quarter:]) / quarter / before

    def _cost(self) -> str:
        figures, times = self.run.figures, self.run.times
        if not self.run.manifest:  # from report to report, there were pauses and validations
            return f"It made {figures.get('steps', 0):,.0f} steps; what they took is not known."
        tokens, speed = figures.get("tokens"), figures.get("tokens_per_second")
        seconds = tokens / speed if tokens and speed else times[-1] - times[0] if times else None
        took = "an unknown time" if seconds is None else duration(seconds)
        parts = [f"It took {took} for {figures.get('steps', 0):,.0f} steps"]
        if tokens:
            parts.append(f"over {tokens:,.0f} tokens")
            if self._epochs is not None:
                parts.append(f"({self._epochs:.1f} epochs)")
        if speed:
            parts.append(f"at {speed:,.0f} tokens a second")
        parameters = self.run.manifest.get("counts", {}).get("parameters")
        if parameters:
            parts.append(f"with {parameters:,} parameters")
        return f"{' '.join(parts)}."

    def plots(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the content of each plot."""
        losses = {"training": self.losses, "held-out text": self.valid}
        if any(losses.values()):
            levels = {}
            if self.held_out:
                known = self.held_out.baselines.items()
                levels = {name: self.held_out.loss(bits) for name, bits in known if name != "xz -9"}
            yield "loss.svg", line_plot("loss, nats a token", losses, levels)
        for name in _PLOTTED:
            if points := self._series(name):
                title = name.replace("_", " ")
                yield f"{name}.svg", line_plot(title, {title: points}, {})

    def sections(self) -> Iterator[str]:
        """Yield the rest: figures, samples, and what made it."""
        known = sorted(self.run.figures.items())
        rows = [(_NAMES.get(name, name), shown_value(value)) for name, value in known]
        rows += [
            (f"{evaluator}: {name}", shown_value(value))
            for evaluator, figures in self.run.evaluation.items()
            for name, value in figures.items()
        ]
        if self.held_out:
            rows += [
                (f"bits per byte of {name}", shown_value(bits))
                for name, bits in self.held_out.baselines.items()
            ]
        if rows:
            yield "## Figures"
            yield _rows(("figure", "value"), [(n.replace("_", " "), v) for n, v in rows])
        if self.run.samples:
            yield "## What it wrote"
            for prompt, text in self.run.samples.items():
                yield f"From {_code(prompt)}:" if prompt else "From nothing:"
                yield "\n".join("    " + line for line in text.split("\n"))
        yield "## What it was made of"
        yield f"```toml\n{self.run.tables.strip()}\n```"
        yield f"All settings, versions and digests are in `model/{MANIFEST}`; `fst compare` tells runs apart."


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 100:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _code(text: str) -> str:
    """Return a text as Markdown shows it verbatim, on one line."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {' '.join(text.split())} {fence}"


def _joined(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _rows(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [header, ("---", "---"), *rows]
    return "\n".join(f"| {first} | {second} |" for first, second in lines)
