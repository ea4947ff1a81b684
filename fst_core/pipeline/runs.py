"""Runs as they lie on disk: what each was made of, how it went, and what came of it. Reads JSON alone."""

from __future__ import annotations

import json
import time
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fst_core.artefacts.manifest import MANIFEST
from fst_core.artefacts.publish import numbered
from fst_core.errors import UserError
from fst_core.pipeline.figures import finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["METRICS", "PastRun", "find_run", "past_runs", "record_metrics"]

METRICS: Final = "metrics.jsonl"
"""The file of a run with a line for each report of its trainer: step, time, metrics."""
_MODEL: Final = "model"
_RUN: Final = "run.json"
_TABLES: Final = "pipeline.toml"
_VALIDATED: Final = ("valid_loss", "perplexity", "bits_per_byte")
"""What a trainer reports of a validation: of a run, what the best one had."""
_AVERAGED: Final = ("data_wait_share", "gradient_norm", "mfu", "padding_share")
"""What a trainer reports of the steps since its last report: of a run, the mean of its steps."""
_PASSING: Final = ("learning_rate", "tokens_per_second")
"""What holds at the moment of a report, and of a run only as far as its trainer says so in the end."""


def record_metrics(directory: Path, step: int, metrics: Mapping[str, float]) -> None:
    """Add what a trainer reports of a step to a run's metrics."""
    line = {"step": step, "time": round(time.time(), 3), "metrics": finite(metrics)}
    with (directory / METRICS).open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(line) + "\n")


class PastRun:
    """A run's directory `<root>/<name>/<n>`; what a file does not say, because it is damaged, is absent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def name(self) -> str:
        """The run's name."""
        return self.directory.resolve().parent.name

    @property
    def number(self) -> int:
        """Which run of that name it is."""
        return int(self.directory.resolve().name)

    @property
    def state(self) -> str:
        """`finished`, or `unfinished`: `fst train` goes on with it."""
        return "finished" if self.manifest else "unfinished"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The model's `fst.json`; empty while there is no model."""
        return _table(self.directory / _MODEL / MANIFEST)

    @cached_property
    def evaluation(self) -> dict[str, dict[str, float | None]]:
        """Figures by evaluator and name."""
        figures = _table(self.directory / "evaluation.json").get("figures")
        return figures if isinstance(figures, dict) else {}

    @property
    def unmet(self) -> list[str]:
        """The gates of `[[evaluate]]` that were not met, a line each."""
        lines = _table(self.directory / "evaluation.json").get("unmet")
        return lines if isinstance(lines, list) else []

    @cached_property
    def metrics(self) -> dict[int, dict[str, float]]:
        """What the trainer reported, by step; what was reported again after a resumption counts."""
        found: dict[int, dict[str, float]] = {}
        for line in self._lines(METRICS):
            if isinstance(line.get("step"), int) and isinstance(line.get("metrics"), dict):
                known = {name: v for name, v in line["metrics"].items() if v is not None}
                found.setdefault(line["step"], {}).update(known)
        return dict(sorted(found.items()))

    @cached_property
    def times(self) -> list[float]:
        """When each report came, in seconds since 1970."""
        return [line["time"] for line in self._lines(METRICS) if "time" in line]

    @property
    def figures(self) -> dict[str, float]:
        """The trainer's final figures, and what follows for the run from those that it reported.

        Of validations those of the best one, of steps the mean or the last; `loss` is the training
        loss at the end, as in `losses`.
        """
        reported: dict[str, float] = {}
        for step, metrics in self.metrics.items():
            reported |= {"steps": step, **metrics}
        last = {k: v for k, v in reported.items() if k not in (*_VALIDATED, *_PASSING)}
        means = {name: self._mean(name) for name in _AVERAGED if name in reported}
        final = self.manifest.get("figures")
        final = final if isinstance(final, dict) else {}
        best = {} if "valid_loss" in final else self._best()
        figures = last | means | best | final
        if "loss" in reported:
            figures["loss"] = self.losses[1]
        return figures

    @property
    def losses(self) -> tuple[float, float]:
        """The training loss at the beginning and at the end, each the mean of a twentieth; at least one."""
        values = [metrics["loss"] for metrics in self.metrics.values() if "loss" in metrics]
        size = max(1, len(values) // 20)
        return sum(values[:size]) / size, sum(values[-size:]) / size

    def _best(self) -> dict[str, float]:
        """Return what was reported of the best validation."""
        validations = [metrics for metrics in self.metrics.values() if "valid_loss" in metrics]
        best = min(validations, key=lambda metrics: metrics["valid_loss"], default={})
        return {name: best[name] for name in _VALIDATED if name in best}

    def _mean(self, name: str) -> float:
        """Return the mean of a figure over steps, each of which has what was reported next."""
        total, before = 0.0, 0
        for step, metrics in self.metrics.items():
            if name in metrics:
                total += metrics[name] * (step - before)
                before = step
        return total / before if before else self.metrics[0][name]

    @property
    def held_out(self) -> tuple[float | None, float | None]:
        """The loss on held-out text and its bits per byte, of one source as far as one has both.

        An evaluator goes before the trainer, whose figures are those of the best validation.
        """
        for figures in self.evaluation.values():
            loss, bits = figures.get("loss"), figures.get("bits_per_byte")
            if loss is not None and bits is not None:
                return loss, bits
        measured = [figures.get("bits_per_byte") for figures in self.evaluation.values()]
        reported = self.figures
        bits = reported.get("bits_per_byte")
        if bits is None or "valid_loss" not in reported:
            bits = next((each for each in measured if each is not None), bits)
        return reported.get("valid_loss"), bits

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of held-out text."""
        return self.held_out[1]

    @property
    def tables(self) -> str:
        """The pipeline as written."""
        try:
            return (self.directory / _TABLES).read_text("utf-8")
        except (OSError, ValueError):
            return ""

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted key: the filled ones of what was trained, else as written."""
        try:
            tables = tomllib.loads(self.tables)
        except ValueError:
            tables = {}
        fields = _table(self.directory / _RUN).get("fields")
        filled = fields if isinstance(fields, dict) else {}
        return dict(_flat(tables)) | {k: v for k, v in filled.items() if k != "stage"}

    @property
    def samples(self) -> dict[str, str]:
        """The last text that was generated from each prompt in training."""
        return {line["prompt"]: line["text"] for line in self._lines("samples.jsonl")}

    def summary(self) -> dict[str, Any]:
        """Return the run in a few figures; None for what is not known."""
        loss, bits = self.held_out
        begun = self.times[0] if self.times else _modified(self.directory / _RUN)
        return {
            "name": self.name,
            "number": self.number,
            "directory": str(self.directory),
            "state": self.state,
            "steps": self.figures.get("steps"),
            "valid_loss": loss,
            "bits_per_byte": bits,
            "parameters": self.manifest.get("counts", {}).get("parameters"),
            "begun": begun,
            "unmet": self.unmet,
        }

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the whole lines of a file; a killed process may have cut the last one."""
        try:
            lines = (self.directory / name).read_bytes().splitlines()
        except OSError:
            return
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict):
                yield said


def past_runs(root: Path) -> list[PastRun]:
    """Return all runs below a directory of runs, by name and number."""
    names = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [PastRun(path) for name in names for path in numbered(name) if (path / _RUN).is_file()]


def find_run(text: str, root: Path) -> PastRun:
    """Return the run that a person means: a directory, or `name/number`, or the newest of a name.

    Raises:
        UserError: there is none.
    """
    for path in (Path(text), root / text):
        for directory in (path, path.parent, *reversed(numbered(path))):
            if (directory / _RUN).is_file():
                return PastRun(directory)
    raise UserError(f"{text}: no such run. `fst runs` lists those below {root}.")


def _table(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds; nothing if it is missing or damaged."""
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for index, item in enumerate(value):
                yield from _flat(
                    item, f"{prefix}{key}.{index}." if len(value) > 1 else f"{prefix}{key}."
                )
        else:
            yield f"{prefix}{key}", value


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
