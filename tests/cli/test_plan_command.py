"""`fst plan`: what it says of a run before it begins, and how near that is."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import fst_fixture  # noqa: F401  # a fixture is used by its name
from fakes.tiny import tiny, write

from fst_core import Trainer
from fst_core.dataset import Dataset
from fst_core.errors import FstError
from fst_core.pipeline.forecast import forecast
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.stages import run_stages

# Long documents, beside which what stands between them does not count.
TEXT = "\n[END_OF_DOCUMENT]\n".join(
    f"{n} roses are red and violets are blue" * 20 for n in range(200)
)


@pytest.fixture(autouse=True)
def folder(work):
    write(work, tiny("trainer.lightning.max_steps=30"), TEXT)
    return work


class Clock:
    """Goes on as trainers say, whatever else the machine does."""

    now = 0.0

    def perf_counter(self):
        return self.now


CLOCK = Clock()


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr("fst_core.pipeline.forecast.time", CLOCK)


class Steady(Trainer):
    """Takes 20 ms a step, and 100 ms for the first; validates after each tenth."""

    seconds = 0.02
    trained_on: list[Dataset] = []

    def fit(self, module, dataset, tokenizer, run, sample):
        self.trained_on.append(dataset)
        (run.directory / "something").write_text("of a trainer")
        for step in range(1, 1000):
            CLOCK.now += 0.1 if step == 1 else self.seconds
            run.metrics(step, {"loss": 1.0, "tokens_per_second": 256 / self.seconds})
            if step % 10 == 0:
                CLOCK.now += 0.1
                run.metrics(step, {"valid_loss": 1.0})
        return {}

    def planned_steps(self, dataset, run):
        return 2 * -(-len(dataset.train) // 8)


class Silent(Steady):
    """Says nothing."""

    def fit(self, module, dataset, tokenizer, run, sample):
        return {}


@dataclass
class Built:
    """A part of a pipeline, as far as a forecast looks at it."""

    offer: Any
    instance: Any
    settings: Any = None

    def build(self):
        return self.instance


def told(line):
    TOLD.append(line)


TOLD: list[str] = []


def pipeline_of(trainer, *overrides):
    pipeline = load_pipeline(Path("pipeline.toml"), overrides)
    return replace(pipeline, trainer=Built(pipeline.trainer.offer, trainer))


def test_the_time_of_all_steps_follows_from_a_few(folder, clock):
    run_stages(load_pipeline(folder / "pipeline.toml"), "prepare", told)
    found = forecast(pipeline_of(Steady()), told, seconds=0.5)
    dataset = Dataset.open(folder / "data/datasets/tiny/1")
    assert found.tokens == dataset.train.tokens
    assert not found.estimated
    assert found.steps == 2 * -(-len(dataset.train) // 8)
    assert found.seconds_per_step == pytest.approx(Steady.seconds)
    assert found.seconds == pytest.approx(found.steps * Steady.seconds)
    assert found.tokens_per_second == pytest.approx(256 / Steady.seconds)
    assert 8 <= found.measured_steps < 60
    assert found.epochs == pytest.approx(found.seconds * found.tokens_per_second / found.tokens)
    assert found.memory > 10**7


class Timed(Steady):
    """Trains for some minutes, and cannot say before how many steps that will be."""

    def planned_steps(self, dataset, run):
        return None


def test_minutes_are_as_many_steps_as_fit(clock):
    pipeline = pipeline_of(Timed())
    assert forecast(pipeline, told, seconds=0.1).steps is None
    pipeline.trainer.settings = SimpleNamespace(minutes=3)
    found = forecast(pipeline, told, seconds=0.1)
    assert found.seconds == pytest.approx(180, rel=0.01)
    assert found.steps == 9000


def test_nothing_is_left_behind(folder, clock):
    before = sorted(folder.iterdir())
    forecast(pipeline_of(Steady()), told, seconds=0.1)
    assert sorted(folder.iterdir()) == before


def test_without_a_dataset_the_first_documents_stand_for_all(folder, clock, monkeypatch):
    monkeypatch.setattr("fst_core.pipeline.forecast._HEAD", 20_000)
    found = forecast(pipeline_of(Steady()), told, seconds=0.1)
    assert found.estimated
    assert "nothing is prepared yet" in TOLD[-1]
    assert Steady.trained_on[-1].train.tokens < 25_000
    run_stages(load_pipeline(folder / "pipeline.toml"), "prepare", told)
    exact = forecast(pipeline_of(Steady()), told, seconds=0.1)
    assert not exact.estimated
    assert found.tokens == pytest.approx(exact.tokens, rel=0.1)
    assert found.steps == pytest.approx(exact.steps, rel=0.1)


def test_parameters_are_those_of_the_model(folder, clock):
    found = forecast(pipeline_of(Steady()), told, seconds=0.1)
    width, vocabulary, positions = 16, 259, 64
    block = 12 * width**2 + 13 * width
    assert found.parameters == width * (vocabulary + positions) + block + 2 * width
    assert found.trained == found.parameters
    assert found.tokens_per_parameter == found.tokens / found.parameters


def test_a_trainer_that_reports_nothing_cannot_be_measured():
    with pytest.raises(FstError, match="reported no step"):
        forecast(pipeline_of(Silent()), told, seconds=0.1)


def test_the_trainer_lightning_is_as_quick_as_planned(fst):
    """The steps of a run take what was said; both are counted without what is done once."""
    said = json.loads(
        fst("plan", "--seconds", "2", "--json", "-s", "trainer.lightning.max_steps=400").out
    )
    assert said["estimated"]
    assert said["tokens_per_second"] > 100
    done = fst("train", "-s", "trainer.lightning.max_steps=400")
    assert done.status == 0
    manifest = json.loads(Path("runs/tiny/1/model/fst.json").read_text("utf-8"))
    speed = manifest["figures"]["tokens_per_second"]
    # Within a fifth on a quiet machine; where tests run, others may work during one of the two.
    assert speed / 3 < said["tokens_per_second"] < speed * 3


def test_it_reads_as_a_table(fst):
    done = fst("plan", "--seconds", "0.2")
    assert done.status == 0
    names = [line.split("  ")[0] for line in done.out.splitlines()]
    assert names[:3] == ["parameters", "corpus", "tokens per parameter"]
    assert names[-3:] == ["memory", "step", "time"]
    assert "judged by the first documents: nothing is prepared yet" in done.out
    assert not Path("runs").exists()


def test_the_trial_shows_no_validations(fst):
    done = fst("plan", "--seconds", "0.2", "-s", "trainer.lightning.val_check_interval=2")
    assert done.status == 0
    assert "validation" not in done.err


def test_what_cannot_be_planned_is_told_at_once(fst):
    done = fst("plan", "-s", "dataset.max_sample_length=128")
    assert (done.status, done.out) == (2, "")
    assert "more than the 64 positions of model 'gpt2'" in done.err
