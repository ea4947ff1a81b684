"""The trainer `lightning`: `on_nan = "skip"`, by which a step that is not finite changes nothing."""

from __future__ import annotations

import json
import math
import re

import pytest
import test_lightning as toys
import torch
from safetensors.torch import load_file

from fst_core.errors import FstError

SKIP = {"on_nan": "skip"}


dataset = toys.dataset  # its fixture
pytestmark = pytest.mark.usefixtures("one_thread")


class Failing(toys.Toy):
    """Gives no numbers in certain training batches, counted from 1, and its buffer no number either."""

    def __init__(self, batches, value=math.nan, begin=0):
        super().__init__()
        self.batches, self.value, self.seen = set(batches), value, begin

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        if self.training:
            self.seen += 1
            if self.seen in self.batches:
                self.calls.fill_(math.nan)
                output.logits = output.logits * self.value
        return output


def failing(*batches, **how):
    torch.manual_seed(toys.SEED)
    return Failing(batches, **how)


STEP_5, STEP_6, STEP_7, STEP_8 = 14, 17, 18, 21
"""A batch of each of these steps: an epoch has 5 of 3 batches and one of 2."""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_skipped_step_changes_nothing_but_where_training_stands(value, dataset, tmp_path, capfd):
    module = failing(STEP_5, value=value)
    weights = {}

    def look(step, metrics):
        if step in {4, 5} and "learning_rate" in metrics:
            weights[step] = {n: p.detach().clone() for n, p in module.named_parameters()}

    run = toys.Watched(tmp_path, fail=look)
    arguments = {"max_epochs": 1, "accumulate_grad_batches": 3}
    _, figures = toys.fit(run, dataset, module, **SKIP, checkpoint_every=1, lightning=arguments)
    assert figures["steps"] == 6
    assert figures["skipped_steps"] == 1
    assert list(toys.losses(run)) == [1, 2, 3, 4, 6]
    assert all(math.isfinite(value) for _, metrics in run.told for value in metrics.values())
    assert toys.losses(run, "skipped_steps") == {5: 1}
    assert list(toys.losses(run, "learning_rate")) == [1, 2, 3, 4, 5, 6]  # the schedule goes on
    for name, before in weights[4].items():
        assert torch.equal(weights[5][name], before)
    assert module.calls.item() == 14  # 17 batches, but the skipped step's three
    for path in tmp_path.rglob("*.safetensors"):
        tensors = load_file(path).values()
        assert all(t.isfinite().all() for t in tensors if t.is_floating_point())
    err = capfd.readouterr().err
    assert re.search(
        r"^step 5: the loss is nan .*samples \d+, .*\. The step is skipped", err, re.MULTILINE
    )
    assert "trained 6 steps, 1 of them skipped: " in err


def test_the_optimizer_takes_no_notice_of_a_skipped_step(dataset, tmp_path):
    """Nor does Adam's count of its steps, by which it corrects its means."""
    arguments = {"max_steps": 5, "accumulate_grad_batches": 3, "limit_val_batches": 0}
    toys.fit(
        toys.Watched(tmp_path), dataset, failing(STEP_5), **SKIP, checkpoint_every=1,
        checkpoints_kept=2, lightning=arguments,
    )  # fmt: skip
    before, after = (
        load_file(tmp_path / f"checkpoints/step-{step:06d}/optimizer.safetensors")
        for step in (4, 5)
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_first_steps_may_be_skipped(dataset, tmp_path, monkeypatch):
    from fst_lightning import display

    monkeypatch.setattr(display, "EVERY", 0)
    run = toys.Watched(tmp_path)
    _, figures = toys.fit(run, dataset, failing(1, 4), **SKIP)
    assert figures["skipped_steps"] == 2
    assert min(toys.losses(run)) == 3


def test_three_in_a_row_are_skipped_and_a_fourth_ends_training(dataset, tmp_path):
    run = toys.Watched(tmp_path / "three")
    _, figures = toys.fit(run, dataset, failing(STEP_5, STEP_6, STEP_7), **SKIP)
    assert figures["skipped_steps"] == 3
    run = toys.Watched(tmp_path / "apart")  # a good one between them
    _, figures = toys.fit(run, dataset, failing(1, 4, 7, STEP_5, STEP_6, STEP_7), **SKIP)
    assert figures["skipped_steps"] == 6
    run = toys.Watched(tmp_path / "four")
    with pytest.raises(
        FstError, match=r"step 8: the loss is nan .*, after 3 such steps in a row\."
    ):
        toys.fit(run, dataset, failing(STEP_5, STEP_6, STEP_7, STEP_8), **SKIP)
    assert max(step for step, _ in run.told) == 7


@pytest.mark.parametrize("at", [3, 5, 6, 9])
def test_a_run_that_skips_resumes_exactly(at, dataset, tmp_path):
    """Killed before, within and after the steps that it skips."""
    bad = (STEP_5, STEP_6)
    whole, run = toys.Watched(tmp_path / "whole"), toys.Watched(tmp_path / "run")
    module, figures = toys.fit(whole, dataset, failing(*bad), **SKIP, checkpoint_every=1)

    def die(step, metrics):
        if step == at and "learning_rate" in metrics:
            raise toys.Killed

    with pytest.raises(toys.Killed):
        toys.fit(
            toys.Watched(run.directory, fail=die),
            dataset,
            failing(*bad),
            **SKIP,
            checkpoint_every=1,
        )
    newest = max((run.directory / "checkpoints").glob("step-*/state.json"))
    state = json.loads(newest.read_text())["state"]
    resumed = failing(*bad, begin=state["epoch"] * 17 + state["batch"])
    _, again = toys.fit(run, dataset, resumed, **SKIP, checkpoint_every=1)
    assert toys.kept(again) == toys.kept(figures)
    toys.assert_equal_weights(resumed, module)
    expected = toys.losses(whole)
    assert toys.losses(run) == {step: expected[step] for step in toys.losses(run)}


def test_how_many_were_skipped_in_a_row_outlives_the_process(dataset, tmp_path):
    def die(step, metrics):
        if step == 6 and "learning_rate" in metrics:
            raise toys.Killed

    bad = (STEP_5, STEP_6, STEP_7, STEP_8)
    with pytest.raises(toys.Killed):
        toys.fit(
            toys.Watched(tmp_path, fail=die), dataset, failing(*bad), **SKIP, checkpoint_every=1
        )
    newest = max((tmp_path / "checkpoints").glob("step-*/state.json"))
    state = json.loads(newest.read_text())["state"]
    resumed = failing(*bad, begin=state["epoch"] * 17 + state["batch"])
    with pytest.raises(FstError, match=r"step 8: .*, after 3 such steps in a row"):
        toys.fit(toys.Watched(tmp_path), dataset, resumed, **SKIP, checkpoint_every=1)


def test_a_run_that_was_stopped_goes_on_with_skipping(dataset, tmp_path):
    with pytest.raises(FstError, match="step 5: the loss is nan"):
        toys.fit(toys.Watched(tmp_path), dataset, failing(STEP_5), checkpoint_every=1)
    newest = max((tmp_path / "checkpoints").glob("step-*/state.json"))
    assert newest.parent.name == "step-000004"
    resumed = failing(STEP_5, begin=12)
    _, figures = toys.fit(toys.Watched(tmp_path), dataset, resumed, **SKIP, checkpoint_every=1)
    assert (figures["steps"], figures["skipped_steps"]) == (toys.STEPS, 1)
