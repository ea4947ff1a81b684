"""`fst train --resume-anyway`: a run goes on although it differs, and says so for good."""

from __future__ import annotations

import json
import os

import pytest
from fakes import fst_fixture  # noqa: F401  # a fixture is used by its name
from fakes.tiny import tiny, write

PIPELINE = tiny("trainer.lightning.max_steps=6", "trainer.checkpoint_every=2", "trainer.device=cpu",
                "trainer.learning_rate=0.001", "trainer.log_text_samples=false")  # fmt: skip


class Killed(Exception):
    """What stands for a process that dies."""


@pytest.fixture
def cut(work, monkeypatch, fst):
    """A run that died after 5 of its 6 steps."""
    from fst_core.pipeline.run import Run

    write(work, PIPELINE)
    told = Run.metrics

    def die(self, step, metrics):
        told(self, step, metrics)
        if step == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "metrics", die)
        with pytest.raises(Killed):
            fst("train")
    return work / "runs/tiny/1"


def changed(*settings):
    return [part for setting in settings for part in ("-s", setting)]


def steps(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if '"loss"' in line]


def test_a_changed_pipeline_is_another_run_and_names_the_fields(cut, fst):
    done = fst("train", *changed("trainer.weight_decay=0.5"))
    assert done.status == 0, done.err
    assert done.out.strip() == "runs/tiny/2/model"
    assert "train: changed since 1: trainer.weight_decay: 0.1 -> 0.5" in done.err


def test_it_goes_on_when_told_to_and_writes_down_what_differed(cut, fst):
    how = changed("trainer.weight_decay=0.5", "trainer.lightning.max_steps=8")
    done = fst("train", "--resume-anyway", *how)
    assert done.status == 0, done.err
    assert done.out.strip() == "runs/tiny/1/model"
    differing = ["trainer.lightning.max_steps: 6 -> 8", "trainer.weight_decay: 0.1 -> 0.5"]
    for line in differing:
        assert f"  {line}\n" in done.err
    (noted,) = map(json.loads, (cut / "overrides.jsonl").read_text().splitlines())
    assert noted["differences"] == differing
    assert steps(cut)[5:] == [5, 6, 7, 8]
    assert json.loads((cut / "model/fst.json").read_text())["fields"]["trainer.weight_decay"] == 0.5
    assert "weight_decay = 0.5" in (cut / "pipeline.toml").read_text()
    again = fst("train", *how)
    assert "train: up to date: runs/tiny/1" in again.err


def test_with_another_dataset_the_epoch_and_the_best_validation_begin_anew(cut, fst):
    how = changed("dataset.max_sample_length=16")
    done = fst("train", "--resume-anyway", *how, *changed("trainer.lightning.max_steps=30"))
    assert done.status == 0, done.err
    assert "dataset.max_sample_length" in done.err or "  dataset: " in done.err
    assert done.out.strip() == "runs/tiny/1/model"
    assert steps(cut)[5:] == list(range(5, 31))
    figures = json.loads((cut / "model/fst.json").read_text())["figures"]
    assert figures["best_step"] > 4


def test_another_model_does_not_fit_and_the_run_can_go_back(cut, fst):
    done = fst("train", "--resume-anyway", *changed("model.n_embd=32"))
    assert done.status == 2
    assert "the checkpoint is of another model. Start a new run" in done.err
    done = fst("train", "--resume-anyway")
    assert done.status == 0, done.err
    assert len((cut / "overrides.jsonl").read_text().splitlines()) == 2
    assert steps(cut)[5:] == [5, 6]


def test_there_has_to_be_an_unfinished_run(work, fst):
    write(work, PIPELINE)
    done = fst("train", "--resume-anyway")
    assert (done.status, done.out) == (2, "")
    assert "--resume-anyway: there is no run below runs/tiny" in done.err
    assert not (work / "runs").exists()
    assert fst("train").status == 0
    done = fst("train", "--resume-anyway", *changed("trainer.weight_decay=0.5"))
    assert done.status == 2
    assert "--resume-anyway: runs/tiny/1 is finished" in done.err
    assert fst("train", "--resume-anyway").status == 0  # nothing differs


def test_what_cannot_be_carried_out_changes_no_run(cut, fst):
    before = (cut / "run.json").read_bytes()
    done = fst("train", "--resume-anyway", *changed("dataset.max_sample_length=128"))
    assert done.status == 2
    assert (cut / "run.json").read_bytes() == before
    assert not (cut / "overrides.jsonl").exists()
    assert fst("train", "--fresh", "--resume-anyway").status == 2


def test_quiet_tells_of_training_alone(work, fst, monkeypatch):
    monkeypatch.setenv("TTY_INTERACTIVE", "1")  # put back at the end: --quiet sets it
    write(work, PIPELINE)
    done = fst("train", "--quiet")
    assert (done.status, done.out) == (0, "runs/tiny/1/model\n")
    assert os.environ["TTY_INTERACTIVE"] == "0"
    assert "prepare:" not in done.err
    assert "step 6: validation loss" in done.err
