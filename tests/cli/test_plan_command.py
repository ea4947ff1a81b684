"""`fst plan`: what it says of a run before it begins, and how near that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakes import fst_fixture  # noqa: F401  # a fixture is used by its name
from fakes.tiny import tiny, write
from transformers import GPT2LMHeadModel

from fst_core import Trainer
from fst_core.dataset import Dataset
from fst_core.errors import FstError
from fst_core.pipeline.forecast import forecast
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.runs import PastRun
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
    for module in ("forecast", "trial"):
        monkeypatch.setattr(f"fst_core.pipeline.{module}.time", CLOCK)


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


class Validating(Steady):
    """Validates after each 50 steps, which takes 200 ms for 4,000 ids, and 40 ms more for texts."""

    every = 50

    def fit(self, module, dataset, tokenizer, run, sample):
        for step in range(1, 1000):
            CLOCK.now += 0.02
            run.metrics(step, {"loss": 1.0})
            if step % self.every == 0:
                CLOCK.now += 0.2 * dataset.valid.tokens / 4000
                run.metrics(step, {"valid_loss": 1.0})
                CLOCK.now += 0.04
        return {}

    def planned_steps(self, dataset, run):
        return 200

    def planned_validations(self, dataset, run, steps):
        return steps // self.every, 0.5

    def for_trial(self, every):
        trial = Validating()
        trial.every = every
        return trial


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
    assert found.seconds_to_start == pytest.approx(0.08)
    assert found.seconds == pytest.approx(0.08 + found.steps * Steady.seconds)
    assert found.tokens_per_second == pytest.approx(256 / Steady.seconds)
    assert 8 <= found.measured_steps < 60
    targets = found.tokens - len(dataset.train)  # nothing predicts the first id of a sample
    assert found.epochs == pytest.approx(found.steps * 256 / targets)
    assert found.memory > 10**7


def test_validations_are_counted_each_on_its_share_of_all_samples(folder, clock):
    pipeline = load_pipeline(folder / "pipeline.toml", ["dataset.valid_share=0.2"])
    run_stages(pipeline, "prepare", told)
    trainer = Built(pipeline.trainer.offer, Validating())
    found = forecast(replace(pipeline, trainer=trainer), told, seconds=0.5)
    valid = Dataset.open(folder / "data/datasets/tiny/1").valid.tokens
    assert valid > 20_000  # of which a part is validated on
    assert found.validations == 4
    assert found.seconds_per_validation == pytest.approx(0.5 * 0.2 * valid / 4000 + 0.04, rel=0.01)
    assert found.seconds_per_step == pytest.approx(0.02)
    assert found.seconds == pytest.approx(4 + 4 * found.seconds_per_validation)


class Timed(Steady):
    """Trains for some minutes, and cannot say before how many steps that will be."""

    def planned_steps(self, dataset, run):
        return None


def test_minutes_are_as_many_steps_as_fit(clock):
    pipeline = pipeline_of(Timed())
    assert forecast(pipeline, told, seconds=0.1).steps is None
    pipeline.trainer.settings = SimpleNamespace(minutes=3)
    found = forecast(pipeline, told, seconds=0.1)
    assert found.steps == 9000
    assert found.seconds == pytest.approx(180, rel=0.01)


def test_minutes_have_time_for_validations(folder, clock):
    class Limited(Validating):
        def planned_steps(self, dataset, run):
            return None

    pipeline = load_pipeline(folder / "pipeline.toml", ["dataset.valid_share=0.2"])
    trainer = Built(pipeline.trainer.offer, Limited(), SimpleNamespace(minutes=3))
    found = forecast(replace(pipeline, trainer=trainer), told, seconds=0.1)
    assert found.steps < 7000
    assert found.seconds == pytest.approx(180, rel=0.01)


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


# a clock that goes on by what is computed: the machine's own is not steady enough to compare by

CORPUS = "\n[END_OF_DOCUMENT]\n".join("roses are red " * (1 + n * n % 12) for n in range(400))


@pytest.fixture
def computed(monkeypatch):
    """Let a forward pass take a microsecond an id, one that is learned from three, and each a while."""
    forward = GPT2LMHeadModel.forward

    @wraps(forward)
    def timed(module, *arguments, input_ids, **others):
        CLOCK.now += 1e-4 + input_ids.numel() * (3e-6 if torch.is_grad_enabled() else 1e-6)
        return forward(module, *arguments, input_ids=input_ids, **others)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", timed)
    monkeypatch.setattr("time.perf_counter", CLOCK.perf_counter)


@pytest.mark.usefixtures("one_thread", "computed")
@pytest.mark.parametrize(
    ("settings", "validations"),
    [
        (["trainer.lightning.max_steps=130", "trainer.lightning.val_check_interval=13"], 10),
        (["trainer.lightning.max_epochs=2", "trainer.lightning.max_steps=-1"], 2),
        (["trainer.lightning.max_steps=60", "trainer.lightning.accumulate_grad_batches=3"], None),
        (["trainer.lightning.max_steps=90", "trainer.lightning.limit_val_batches=2"], None),
        (["trainer.lightning.max_steps=90", "trainer.lightning.limit_val_batches=0"], 0),
        (["trainer.lightning.max_steps=90", "trainer.lightning.log_every_n_steps=50"], None),
    ],
    ids=str,
)
def test_a_training_takes_what_was_planned(settings, validations, folder):
    """Steps, validations and texts together, on ragged documents, within a fifth."""
    write(folder, tiny("dataset.valid_share=0.2", "trainer.precision=fp32", *settings), CORPUS)
    pipeline = load_pipeline(folder / "pipeline.toml")
    run_stages(pipeline, "prepare", told)
    found = forecast(pipeline, told, seconds=0.02)
    begun = CLOCK.now
    run_stages(pipeline, "train", told)
    run = PastRun(folder / "runs/tiny/1")
    assert found.seconds == pytest.approx(CLOCK.now - begun, rel=0.2)
    assert found.steps == run.figures["steps"]
    counted = sum("valid_loss" in metrics for metrics in run.metrics.values())
    assert found.validations == counted
    if validations is not None:
        assert counted == validations
    samples = Dataset.open(folder / "data/datasets/tiny/1").train
    assert found.epochs == pytest.approx(
        run.figures["tokens"] / (samples.tokens - len(samples)), rel=0.1
    )


SHOW = """
from pathlib import Path
from fst_core.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    print(1024 * int(status.partition("VmHWM:")[2].split()[0]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_training_needs_the_memory_that_was_planned(folder):
    """Of a model whose checkpoint takes about as much as the rest: one that was not begun would be missed."""
    sizes = ["model.n_embd=768", "model.n_layer=4", "model.n_head=8", "dataset.valid_share=0.2"]
    limits = ["trainer.checkpoint_every=3", "trainer.lightning.max_steps=16", "run.name=wide"]
    write(folder, tiny(*sizes, *limits), TEXT)
    variables = os.environ | {"OMP_NUM_THREADS": "1"}

    def ran(*arguments):
        line = [sys.executable, "-c", SHOW, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=variables)
        return done.stdout.splitlines()

    said = json.loads("\n".join(ran("plan", "--json", "--seconds", "0.1")[:-1]))
    assert said["memory"] == pytest.approx(int(ran("train")[-1]), rel=0.2)


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


def test_several_devices_are_planned_by_one(fst):
    together = ["-s", "trainer.lightning.devices=2", "-s", "trainer.lightning.strategy=ddp"]
    done = fst("plan", "--seconds", "0.2", "-s", "trainer.device=cpu", *together)
    assert done.status == 0
    assert "30 steps" in done.out


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
