"""The trainer `lightning`: a run that is killed anywhere ends as one that never was."""

from __future__ import annotations

import inspect
import io
import json
import logging
import math
import os
import random
import re
import signal
import subprocess
import sys
import types
import typing
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fst_core.artefacts import write_manifest
from fst_core.dataset import Batching, Dataset, SplitWriter, token_dtype
from fst_core.errors import FstError, SettingsError, UserError
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.run import Run
from fst_core.plugins import registry
from fst_core.settings import problems, validate
from fst_core.testing import TrainerContract
from fst_core.testing.toys import ToyTokenizer

VOCABULARY = 24
LENGTH = 24
SEED = 228


class Toy(nn.Module):
    """Causal attention with dropout, a buffer, and a head tied to the embedding."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 16)
        self.mix = nn.Linear(16, 48)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, VOCABULARY, bias=False)
        self.head.weight = self.tokens.weight
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("position", torch.linspace(0, 1, LENGTH)[:, None], persistent=False)

    def forward(
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        use_cache=False,
    ):
        if self.training:
            self.calls += 1
        x = self.tokens(input_ids) + self.position[: input_ids.shape[1]]
        queries, keys, values = self.mix(self.dropout(x)).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return types.SimpleNamespace(logits=self.head(self.norm(x + self.dropout(mixed))))


class Watched(Run):
    """A run that keeps what observers are told, and fails where a test wants it to."""

    def __init__(self, directory, seed=SEED, fail=None):
        super().__init__("toy", directory, seed)
        object.__setattr__(self, "told", [])
        object.__setattr__(self, "fail", fail)

    def metrics(self, step, metrics):
        self.told.append((step, dict(metrics)))
        if self.fail is not None:
            self.fail(step, metrics)


class Killed(Exception):
    """What stands for a process that dies."""


def dying(at):
    """Return what fails when a step's loss is told."""

    def fail(step, metrics):
        if step == at and "loss" in metrics:
            raise Killed

    return fail


def dying_at(moment):
    """Return what fails when anything is told for the n-th time."""
    left = [moment]

    def fail(step, metrics):
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return fail


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "1", train=60, valid=9)


def write_dataset(directory, train, valid, fingerprint="toy"):
    """Sequences in which each id follows from the one before it, most of the time."""
    generator = np.random.default_rng(SEED)
    counts = {"max_sample_length": LENGTH}
    for split, number in (("train", train), ("valid", valid)):
        lengths = generator.integers(2, LENGTH + 1, number)
        ids = generator.integers(0, VOCABULARY, int(lengths.sum()))
        for at in range(1, len(ids)):
            if generator.random() < 0.8:
                ids[at] = (ids[at - 1] * 5 + 7) % VOCABULARY
        ends = np.cumsum(lengths)
        with SplitWriter(directory / split, token_dtype(VOCABULARY)) as writer:
            if number:
                writer.write(ids.astype(np.uint32), ends - lengths, ends)
        counts |= {
            f"number_of_{split}_tokens": writer.tokens,
            f"number_of_{split}_samples": writer.samples,
            f"number_of_{split}_bytes": writer.tokens,
        }
    write_manifest(directory, "dataset", counts=counts, fingerprint=fingerprint)
    return Dataset.open(directory)


SETTINGS = {
    "batch_size": 4,
    "learning_rate": 0.02,
    "num_warmup_steps": 3,
    "num_cycles": 2,
    "checkpoint_every": 4,
    "device": "cpu",
    "precision": "fp32",
    "sample_prompts": ["", "a"],
}
ARGUMENTS = {"max_epochs": 3, "accumulate_grad_batches": 3, "val_check_interval": 7}
"""17 batches and 6 steps an epoch, the last of them of 2 batches; validations fall anywhere."""
STEPS = 18


def settings(lightning=ARGUMENTS, **changed):
    cls = registry().find("trainer", "lightning").settings_class()
    return validate(cls, {**SETTINGS, **changed, "lightning": lightning})


def build(lightning=ARGUMENTS, **changed):
    return registry().find("trainer", "lightning").build(settings(lightning, **changed))


def new_module(dropout=0.2):
    torch.manual_seed(SEED)
    return Toy(dropout)


def fit(run, dataset, module=None, sample=None, trainer=None, **changed):
    """Train, and return the module and the figures."""
    module = module or new_module()
    trainer = trainer or build(**changed)

    def draw(prompts):
        assert not module.training
        assert not torch.is_grad_enabled()
        drawn = np.random.randint(3)  # noqa: NPY002  # from the global generators, all of them
        text = "é" * (1 + int(torch.randint(3, ())) + random.randrange(3) + drawn)
        return [prompt + text for prompt in prompts]

    return module, trainer.fit(module, dataset, ToyTokenizer(), run, sample or draw)


def losses(run, key="loss"):
    return {step: metrics[key] for step, metrics in run.told if key in metrics}


def kept(figures):
    """The figures that do not depend on the time."""
    return {name: value for name, value in figures.items() if name != "tokens_per_second"}


def assert_equal_weights(found, expected):
    ours, theirs = found.state_dict(), expected.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def steps_kept(run):
    return sorted(path.name for path in (run.directory / "checkpoints").iterdir() if path.is_dir())


# the contract of trainers


class TestLightning(TrainerContract):
    use = "lightning"
    settings = {"learning_rate": 0.01, "batch_size": 8, "lightning": {"max_epochs": 3}}


# learning


def test_the_loss_falls_and_the_best_weights_are_kept(dataset, tmp_path):
    run = Watched(tmp_path)
    module, figures = fit(run, dataset)
    told = losses(run)
    assert list(told) == list(range(1, STEPS + 1))
    assert told[STEPS] < 0.8 * told[1]
    valid = losses(run, "valid_loss")
    assert figures["steps"] == STEPS
    assert figures["valid_loss"] == min(valid.values())
    assert valid[figures["best_step"]] == figures["valid_loss"]
    assert figures["perplexity"] == pytest.approx(math.exp(figures["valid_loss"]))
    assert not module.training
    assert mean_loss(module, dataset.valid) == pytest.approx(figures["valid_loss"], rel=1e-6)


def mean_loss(module, samples):
    total = count = 0
    for sample in (torch.from_numpy(samples[i].astype(np.int64)) for i in range(len(samples))):
        with torch.no_grad():
            logits = module(sample[None, :-1]).logits[0]
        total += nn.functional.cross_entropy(logits, sample[1:], reduction="sum").item()
        count += len(sample) - 1
    return total / count


def test_the_best_weights_are_not_the_last_where_validation_gets_worse(dataset, tmp_path):
    run = Watched(tmp_path)
    module, figures = fit(run, dataset, lightning={"max_epochs": 15}, learning_rate=0.05)
    assert figures["best_step"] < figures["steps"] == 15 * 17
    assert mean_loss(module, dataset.valid) == pytest.approx(figures["valid_loss"], rel=1e-6)
    best = f"step-{figures['best_step']:06d}"
    assert best in steps_kept(run)
    assert len(steps_kept(run)) == 3  # the last two, and the best


def test_a_steps_loss_is_that_of_all_its_targets_together(dataset, tmp_path):
    """Whether a step's samples come in one batch or in several, of whatever lengths."""
    together, apart = Watched(tmp_path / "a"), Watched(tmp_path / "b")
    plain = {"max_epochs": 2, "limit_val_batches": 0}
    fit(together, dataset, new_module(0.0), batch_size=12, lightning=plain)
    fit(apart, dataset, new_module(0.0), lightning=plain | {"accumulate_grad_batches": 3})
    for key in ("loss", "gradient_norm"):
        expected = losses(together, key)
        assert len(expected) == 12
        assert losses(apart, key) == pytest.approx(expected, rel=1e-4)


def test_padding_and_the_first_id_are_no_targets():
    from fst_lightning.loss import summed_loss

    logits = torch.randn(2, 4, 5)
    labels = torch.tensor([[1, 2, 3, 4], [1, 2, -100, -100]])
    expected = -sum(
        logits[row, at].log_softmax(-1)[labels[row, at + 1]]
        for row, at in ((0, 0), (0, 1), (0, 2), (1, 0))
    )
    assert summed_loss(logits, labels).item() == pytest.approx(expected.item())


def test_the_same_seed_gives_the_same_losses_and_another_one_others(dataset, tmp_path):
    runs = [Watched(tmp_path / str(i), seed) for i, seed in enumerate((SEED, SEED, SEED + 1))]
    for number, run in enumerate(runs):
        torch.manual_seed(number)  # whatever came before
        module = Toy()
        module.load_state_dict(new_module().state_dict())
        torch.randn(number + 1)
        random.seed(number)
        fit(run, dataset, module, lightning=ARGUMENTS | {"max_steps": 20, "max_epochs": -1})
    first, second, other = map(losses, runs)
    assert len(first) == 20
    assert first == second
    assert first[2] != other[2]


def test_matrices_decay_and_biases_norms_and_embeddings_do_not():
    from fst_lightning.optimizer import adamw

    module = new_module()
    module.frozen = nn.Linear(2, 2).requires_grad_(False)
    module.rows = nn.Parameter(torch.ones(3, 2))
    module.rows.no_weight_decay = True
    optimizer = adamw(module, settings(weight_decay=0.3), 0.02)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in optimizer.param_groups
    }
    assert groups == {
        0.3: {"mix.weight"},
        0.0: {"tokens.weight", "mix.bias", "norm.weight", "norm.bias", "rows"},
    }
    assert optimizer.defaults["fused"]


def test_the_schedule_is_that_of_transformers():
    from fst_lightning.schedule import Schedule
    from transformers import get_cosine_with_hard_restarts_schedule_with_warmup as peer

    for total, warmup, cycles in ((100, 10, 3), (7, 0, 1), (10, 20, 2), (1, 0, 1), (50, 7, 5)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
        expected = peer(optimizer, warmup, total, cycles).lr_lambdas[0]
        ours = Schedule(total, warmup, cycles)
        assert [ours(step) for step in range(total + 5)] == [
            expected(step) for step in range(total + 5)
        ]


def test_the_schedule_ends_at_its_floor_and_warms_up_for_a_tenth():
    from fst_lightning.schedule import Schedule

    schedule = Schedule(500, None, floor=0.25, longest_warmup=100)
    assert [schedule(0), schedule(25), schedule(50)] == [0, 0.5, 1]
    assert schedule(275) == pytest.approx(0.25 + 0.75 / 2)
    assert schedule(500) == schedule(900) == 0.25
    assert [Schedule(5000, None).warmup, Schedule(5000, None, longest_warmup=90).warmup] == [40, 90]


def test_the_learning_rate_of_each_step_is_the_schedules(dataset, tmp_path):
    from fst_lightning.schedule import Schedule

    run = Watched(tmp_path)
    fit(run, dataset)
    schedule = Schedule(STEPS, 3, 2)
    told = losses(run, "learning_rate")
    assert told == {step: 0.02 * schedule(step - 1) for step in range(1, STEPS + 1)}


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped(algorithm, dataset, tmp_path):
    """Adam's first step is as long for any gradient: what tells is the mean that it keeps."""
    arguments = {"max_steps": 1, "gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    run = Watched(tmp_path)
    fit(run, dataset, lightning=arguments, betas=[0.0, 0.9])
    means = load_file(tmp_path / "checkpoints/step-000001/optimizer.safetensors")
    gradients = [tensor for name, tensor in means.items() if name.endswith("/exp_avg")]
    assert losses(run, "gradient_norm")[1] > 0.1
    if algorithm == "norm":
        assert nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-3)
    else:
        assert max(g.abs().max().item() for g in gradients) == pytest.approx(1e-3)


# resuming


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A run that was never killed."""
    run = Watched(tmp_path_factory.mktemp("whole"))
    return run, *fit(run, dataset)


def assert_as_if_never_killed(run, module, figures, whole, first=1):
    expected_run, expected_module, expected_figures = whole
    for key in ("loss", "gradient_norm", "learning_rate", "valid_loss"):
        told, expected = losses(run, key), losses(expected_run, key)
        assert told == {step: expected[step] for step in told}
        assert set(told) >= {step for step in expected if step >= first}
    assert kept(figures) == kept(expected_figures)
    assert_equal_weights(module, expected_module)
    last = f"checkpoints/step-{STEPS:06d}"
    for name in ("model", "optimizer", "random"):
        found = load_file(run.directory / last / f"{name}.safetensors")
        expected = load_file(expected_run.directory / last / f"{name}.safetensors")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[tensor], expected[tensor]) for tensor in expected)
    states = [
        json.loads((r.directory / last / "state.json").read_text()) for r in (run, expected_run)
    ]
    for state in states:
        for time in ("seconds", "elapsed"):
            state["state"].pop(time)
    assert states[0] == states[1]
    samples = [(r.directory / "samples.jsonl").read_text() for r in (run, expected_run)]
    assert samples[0] == samples[1]


@pytest.mark.parametrize("moment", range(26))
def test_a_run_killed_at_any_moment_ends_as_one_that_never_was(moment, dataset, tmp_path, whole):
    """At each time that observers are told something: after each step and each validation."""
    assert len(whole[0].told) == 26
    killed = Watched(tmp_path, fail=dying_at(moment))
    with pytest.raises(Killed):
        fit(killed, dataset)
    run = Watched(tmp_path)
    module, figures = fit(run, dataset)
    reached, began = killed.told[-1][0], min(losses(run))
    assert reached - 4 <= began <= reached + 1  # no more is done again than checkpoint_every
    assert_as_if_never_killed(run, module, figures, whole, first=began)


def test_a_run_may_be_killed_again_and_again(dataset, tmp_path, whole):
    for at in (3, 7, 7, 12, 17):
        with pytest.raises(Killed):
            fit(Watched(tmp_path, fail=dying(at)), dataset)
    run = Watched(tmp_path)
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=17)
    assert min(losses(run)) > 12


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_steps": 15, "val_check_interval": 4},
        {"max_epochs": 2, "val_check_interval": 0.4, "accumulate_grad_batches": 2},
        {"max_epochs": 3, "check_val_every_n_epoch": 2, "limit_train_batches": 7},
        {"max_steps": 15, "limit_val_batches": 0},
        {"max_epochs": 3, "overfit_batches": 5, "num_sanity_val_steps": 1},
        {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1, "min_epochs": 1},
    ],
    ids=json.dumps,
)
def test_runs_of_all_lengths_resume_exactly(arguments, dataset, tmp_path):
    whole = Watched(tmp_path / "whole")
    module, figures = fit(whole, dataset, lightning=arguments)
    for moment in range(1, len(whole.told), 7):
        directory = tmp_path / str(moment)
        with pytest.raises(Killed):
            fit(Watched(directory, fail=dying_at(moment)), dataset, lightning=arguments)
        run = Watched(directory)
        resumed, again = fit(run, dataset, lightning=arguments)
        assert_equal_weights(resumed, module)
        assert kept(again) == kept(figures)
        expected = losses(whole)
        assert losses(run) == {step: expected[step] for step in losses(run)}


def test_bf16_resumes_exactly_over_fp32_weights(dataset, tmp_path):
    whole, run = Watched(tmp_path / "whole"), Watched(tmp_path / "run")
    module, figures = fit(whole, dataset, precision="bf16")
    with pytest.raises(Killed):
        fit(Watched(run.directory, fail=dying(11)), dataset, precision="bf16")
    resumed, again = fit(run, dataset, precision="bf16")
    assert kept(again) == kept(figures)
    assert_equal_weights(resumed, module)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    exact = Watched(tmp_path / "exact")
    fit(exact, dataset)
    assert losses(exact) != losses(whole)


def test_a_finished_run_trains_no_more(dataset, tmp_path):
    run = Watched(tmp_path)
    module, figures = fit(run, dataset)
    told = len(run.told)
    again, same = fit(run, dataset)
    assert len(run.told) == told
    assert same == figures
    assert_equal_weights(again, module)
    assert not again.training


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
import test_lightning as toys
from fst_core.dataset import Dataset
torch.set_num_threads(1)

def slowly(step, metrics):
    print(step, flush=True)
    time.sleep(0.02)

toys.fit(toys.Watched(Path(sys.argv[3]), fail=slowly), Dataset.open(Path(sys.argv[2])))
"""


def start(dataset, directory, until):
    """Train in another process, and return it as soon as it has told of a step."""
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", SCRIPT, here, str(dataset.directory), str(directory)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    while int(process.stdout.readline()) < until:
        pass
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_killed_for_good_is_as_if_it_never_was(dataset, tmp_path, whole):
    with start(dataset, tmp_path, until=11) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    run = Watched(tmp_path)
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=13)
    assert min(losses(run)) > 4


DYING = """
import os, signal, sys
from fst_core.artefacts import publish

left = [int(sys.argv[4])]

def dying(flush):
    def flush_or_die(*arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(*arguments)
    return flush_or_die

publish._fsync_file = dying(publish._fsync_file)
publish._fsync_directory = dying(publish._fsync_directory)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    dataset, tmp_path, whole
):
    """At whichever flush of whichever file, before the rename and after it: each checkpoint has 7."""
    here = str(Path(__file__).parent)
    for flush in (0, 3, 8, 11, 13, 16, 19):
        directory = tmp_path / str(flush)
        arguments = [here, str(dataset.directory), str(directory), str(flush)]
        done = subprocess.run([sys.executable, "-c", DYING + SCRIPT, *arguments], check=False,
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert done.returncode == -signal.SIGKILL, done.stderr
        run = Watched(directory)
        assert_as_if_never_killed(run, *fit(run, dataset), whole, first=min(losses(run)))
        if flush > 13:
            assert min(losses(run)) > 1
        assert list((directory / "checkpoints").glob(".*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_sigterm_writes_a_checkpoint_and_ends_with_143(dataset, tmp_path, whole):
    with start(dataset, tmp_path, until=6) as process:
        process.send_signal(signal.SIGTERM)
        steps = [6, *map(int, process.stdout)]
        assert process.wait() == 143
    last = steps[-1]
    assert last <= 8  # it stopped at once
    assert f"step-{last:06d}" in steps_kept(Watched(tmp_path))
    run = Watched(tmp_path)
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=last + 1)
    assert min(losses(run)) == last + 1


class Signalling(Toy):
    """Gets a signal in the midst of a forward pass."""

    def __init__(self, at, training, number=signal.SIGINT, times=1):
        super().__init__()
        self.left, self.when, self.number, self.times = at, training, number, times

    def forward(self, *args, **kwargs):
        if self.training == self.when:
            self.left -= 1
            if self.left == 0:
                for _ in range(self.times):
                    os.kill(os.getpid(), self.number)
        return super().forward(*args, **kwargs)


def signalling(*when, **how):
    torch.manual_seed(SEED)
    return Signalling(*when, **how)


@pytest.mark.parametrize(
    ("when", "step"),
    [
        ((13, True), 4),  # in the first batch of step 5
        ((14, True), 4),  # in its second
        ((15, True), 5),  # in its third, which completes it
        ((17, True), 6),  # in the last batch of an epoch
        ((4, False), 4),  # in the first batch of a validation in the midst of a step
        ((8, False), 7),  # in the second batch of one after a step
        ((24, False), 18),  # in the last batch of the last, after the last step
    ],
)
def test_ctrl_c_keeps_the_last_completed_step(when, step, dataset, tmp_path, whole):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(Watched(tmp_path), dataset, signalling(*when))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    run = Watched(tmp_path)
    assert steps_kept(run)[-1] == f"step-{step:06d}"
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=step + 1)
    assert min(losses(run), default=step + 1) == step + 1


def test_an_interrupt_from_elsewhere_keeps_the_last_completed_step(dataset, tmp_path, whole):
    def interrupt(step, metrics):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Watched(tmp_path, fail=interrupt), dataset)
    run = Watched(tmp_path)
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=7)
    assert min(losses(run)) == 7


@pytest.mark.parametrize("here", [True, False])
def test_an_interrupt_says_where_the_next_call_goes_on(here, dataset, tmp_path, capfd):
    def interrupt(step, metrics):
        if step == 4 and not here:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Watched(tmp_path, fail=interrupt), dataset, signalling(13, True) if here else None)
    told = "interrupted after step 4; the same command goes on from there"
    assert capfd.readouterr().err.splitlines()[-1] == told


def test_an_interrupt_of_sampling_samples_again(dataset, tmp_path, whole):
    sampled = []

    def sample(prompts):
        sampled.append(prompts)
        if len(sampled) == 3:
            raise KeyboardInterrupt
        return ["é"] * 2

    with pytest.raises(KeyboardInterrupt):
        fit(Watched(tmp_path), dataset, sample=sample)
    assert steps_kept(Watched(tmp_path))[-1] == "step-000007"
    run = Watched(tmp_path)
    fit(run, dataset, sample=sample)
    assert losses(run) == {step: loss for step, loss in losses(whole[0]).items() if step > 7}
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines[::2]] == list(losses(whole[0], "valid_loss"))


def test_a_second_signal_leaves_at_once(dataset, tmp_path):
    run = Watched(tmp_path)
    with pytest.raises(SystemExit) as ended:
        fit(run, dataset, signalling(18, True, number=signal.SIGTERM, times=2))
    assert ended.value.code == 143
    assert steps_kept(run)[-1] <= "step-000004"  # which may still be being written
    assert max(losses(run)) == 6


def test_a_signal_before_the_first_step_leaves_no_checkpoint(dataset, tmp_path, capfd):
    run = Watched(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(run, dataset, signalling(1, True))
    assert "interrupted before the first checkpoint" in capfd.readouterr().err
    assert steps_kept(run) == []
    assert run.told == []


def damage_size(directory):
    os.truncate(directory / "model.safetensors", 100)


def damage_byte(directory):
    content = bytearray((directory / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (directory / "optimizer.safetensors").write_bytes(content)


def damage_state(directory):
    (directory / "state.json").unlink()


def damage_manifest(directory):
    (directory / "fst.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_size, damage_byte, damage_state, damage_manifest])
def test_a_damaged_checkpoint_is_passed_over(damage, dataset, tmp_path, whole, caplog):
    with pytest.raises(Killed):
        fit(Watched(tmp_path, fail=dying(14)), dataset)
    run = Watched(tmp_path)
    *_, before, newest = steps_kept(run)
    assert (before, newest) == ("step-000009", "step-000012")
    damage(tmp_path / "checkpoints" / newest)
    with caplog.at_level(logging.WARNING):
        module, figures = fit(run, dataset)
    (warning,) = caplog.messages
    assert str(tmp_path / "checkpoints" / newest) in warning
    assert min(losses(run)) == 10
    assert_as_if_never_killed(run, module, figures, whole, first=10)


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew(dataset, tmp_path, whole):
    with pytest.raises(Killed):
        fit(Watched(tmp_path, fail=dying(14)), dataset)
    for path in (tmp_path / "checkpoints").iterdir():
        damage_size(path)
    (tmp_path / "checkpoints/.step-000004.partial").mkdir()
    run = Watched(tmp_path)
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=1)
    assert not (tmp_path / "checkpoints/.step-000004.partial").exists()


def test_a_run_goes_on_only_as_what_it_was(dataset, tmp_path):
    with pytest.raises(Killed):
        fit(Watched(tmp_path, fail=dying(6)), dataset)
    other = write_dataset(tmp_path / "other", 60, 9, fingerprint="another")
    with pytest.raises(UserError, match="dataset: 'toy' -> 'another'"):
        fit(Watched(tmp_path), other)
    changed = {"weight_decay": 0.5, "lightning": ARGUMENTS | {"max_epochs": 4}}
    with pytest.raises(
        UserError, match=r"lightning\.max_epochs: 3 -> 4; trainer\.weight_decay: 0\.1 -> 0\.5"
    ):
        fit(Watched(tmp_path), dataset, **changed)
    with pytest.raises(UserError, match="seed: 228 -> 1"):
        fit(Watched(tmp_path, seed=1), dataset)
    wider = new_module()
    wider.register_buffer("another", torch.zeros(1))
    with pytest.raises(UserError, match="another model"):
        fit(Watched(tmp_path), dataset, wider)
    free = {"checkpoint_every": 3, "sample_prompts": ["b"], "checkpoints_kept": 5}
    assert fit(Watched(tmp_path), dataset, **free)[1]["steps"] == STEPS


def test_checkpoints_are_plain_data(dataset, tmp_path):
    run = Watched(tmp_path)
    fit(run, dataset)
    found = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    found -= {path.suffix for path in (tmp_path / "tensorboard").iterdir()}
    assert found == {".json", ".jsonl", ".safetensors"}


def test_a_directory_that_cannot_be_written_fails_loudly(dataset, tmp_path):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(FstError, match="checkpoints: no checkpoint can be written"):
        fit(Watched(tmp_path), dataset)

    def block(step, metrics):
        (tmp_path / "run/checkpoints/step-000004").write_text("in the way")

    run = Watched(tmp_path / "run", fail=block)
    with pytest.raises(FstError, match="step-000004: the checkpoint cannot be written"):
        fit(run, dataset, lightning={"max_epochs": 1})
    assert 4 <= max(losses(run)) <= 8  # by the next one at the latest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_disk_that_is_full_fails_by_the_next_checkpoint_and_keeps_the_last(dataset, tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, metrics):
        if step == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))

    arguments = {"max_epochs": 3, "log_every_n_steps": 6, "limit_val_batches": 0}
    changed = {"lightning": arguments, "log_text_samples": False}
    run = Watched(tmp_path, fail=fill)
    try:
        with pytest.raises(FstError, match=r"step-0000\d\d: the checkpoint cannot be written"):
            fit(run, dataset, **changed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps_kept(run)[-1] == "step-000004"
    assert list((tmp_path / "checkpoints").glob(".*")) == []
    whole, resumed = Watched(tmp_path / "whole"), Watched(tmp_path)
    expected, _ = fit(whole, dataset, **changed)
    assert_equal_weights(fit(resumed, dataset, **changed)[0], expected)


# stopping when it goes wrong


def test_a_loss_that_is_no_number_stops_at_once_and_names_the_samples(dataset, tmp_path):
    module = new_module()

    def poison(step, metrics):
        if step == 5:
            module.mix.bias.data[0] = math.nan

    run = Watched(tmp_path, fail=poison)
    with pytest.raises(FstError) as failed:
        fit(run, dataset, module)
    *_, sixth = Batching(dataset.train, 4, accumulate=3).steps(SEED, 0)
    samples = ", ".join(str(i) for indices in sixth for i in indices)
    assert (
        f"step 6: the loss is nan and the gradient's norm nan, with training samples {samples}"
        in str(failed.value)
    )
    assert max(losses(run)) == 5
    assert steps_kept(run)[-1] == "step-000004"
    for path in tmp_path.rglob("*.safetensors"):
        tensors = load_file(path).values()
        assert all(t.isfinite().all() for t in tensors if t.is_floating_point())


def test_a_gradient_that_is_not_finite_changes_no_weights(dataset, tmp_path):
    module = new_module()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.mix.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(
        FstError, match=r"step 1: the loss is \d\S+ and the gradient's norm (inf|nan)"
    ):
        fit(Watched(tmp_path), dataset, module)
    del before["calls"]
    assert all(torch.equal(module.state_dict()[name], before[name]) for name in before)


def test_a_validation_loss_that_is_no_number_stops(dataset, tmp_path):
    class Blind(Toy):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            if not self.training:
                output.logits = output.logits * math.nan
            return output

    with pytest.raises(FstError, match="step 2: the validation loss is nan"):
        fit(Watched(tmp_path), dataset, Blind())


# showing


def test_tensorboard_has_the_figures_and_the_samples(dataset, tmp_path):
    with pytest.raises(Killed):
        fit(Watched(tmp_path, fail=dying(7)), dataset)
    run = Watched(tmp_path)
    fit(run, dataset)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = {
        "loss",
        "valid_loss",
        "perplexity",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
        "bits_per_byte",
        "data_wait_share",
        "padding_share",
    }
    assert set(events.Tags()["scalars"]) == scalars
    assert [event.step for event in events.Scalars("loss")] == list(range(1, STEPS + 1))
    told = losses(run)
    assert {e.step: e.value for e in events.Scalars("loss") if e.step in told} == pytest.approx(
        told
    )
    assert set(events.Tags()["tensors"]) == {"sample_0/text_summary", "sample_1/text_summary"}
    texts = [
        events.Tensors(f"sample_{i}/text_summary")[-1].tensor_proto.string_val[0].decode()
        for i in (0, 1)
    ]
    assert re.fullmatch(r"\*\*what it wrote\*\*\n\n    é+", texts[0])
    assert re.fullmatch(r"\*\*prompt\*\*\n\n    a\n\n\*\*what it wrote\*\*\n\n    aé+", texts[1])


def test_samples_are_written_at_each_validation(dataset, tmp_path):
    run = Watched(tmp_path)
    fit(run, dataset)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_bytes().splitlines()]
    assert [line["step"] for line in lines[::2]] == list(losses(run, "valid_loss"))
    assert [line["prompt"] for line in lines] == ["", "a"] * (len(lines) // 2)
    assert all(line["text"].lstrip("a").strip("é") == "" for line in lines)


def test_a_torn_line_of_samples_is_written_again(dataset, tmp_path, whole):
    with pytest.raises(Killed):
        fit(Watched(tmp_path, fail=dying(10)), dataset)
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(b'{"step": 10, "prompt": "", "te')
    run = Watched(tmp_path)
    assert_as_if_never_killed(run, *fit(run, dataset), whole, first=10)


def test_sampling_never_changes_training(dataset, tmp_path, whole):
    """Nor do its prompts, nor its absence."""
    for number, changed in enumerate(({"log_text_samples": False}, {"sample_prompts": ["b"]})):
        run = Watched(tmp_path / str(number))
        module, _ = fit(run, dataset, **changed)
        assert losses(run) == losses(whole[0])
        assert_equal_weights(module, whole[1])
        assert (run.directory / "samples.jsonl").exists() == bool(number)


def test_figures_are_logged_each_nth_step(dataset, tmp_path):
    run = Watched(tmp_path)
    fit(run, dataset, lightning=ARGUMENTS | {"log_every_n_steps": 5})
    assert list(losses(run)) == [5, 10, 15]
    assert len(losses(run, "valid_loss")) == 8


def test_lines_tell_how_it_goes_and_nothing_else_is_printed(dataset, tmp_path, capfd, monkeypatch):
    from fst_lightning import display

    monkeypatch.setattr(display, "EVERY", 0)
    fit(Watched(tmp_path), dataset, sample=lambda prompts: ["two\nlines " + "x" * 300] * 2)
    out, err = capfd.readouterr()
    assert out == ""
    number = r"[\d,]+(\.\d+)?"
    step = rf"step \d+/18: loss {number}(, validation loss {number})?, {number} tokens/s, 0:00:\d\d left"
    valid = rf"step \d+: validation loss {number}, perplexity {number}, {number} bits per byte"
    valid += "(, the best so far)?"
    end = rf"trained 18 steps: {number}% of the time waiting for data, {number}% padding, MFU n/a"
    sample = r"  (a )?\| two lines x{186,188}\.\.\."
    lines = err.splitlines()
    assert [
        line for line in lines if not re.fullmatch(f"{step}|{valid}|{sample}|{end}", line)
    ] == []
    assert len(lines) == 18 + 8 + 2 * 8 + 1


def test_many_validations_are_told_now_and_then_and_kept_all(dataset, tmp_path, capfd):
    """The first and the last, with their samples, where all of them take less than ten seconds."""
    run = Watched(tmp_path)
    fit(run, dataset)
    err = capfd.readouterr().err.splitlines()
    validations = [int(line.split()[1].rstrip(":")) for line in err if "validation loss" in line]
    kept = list(losses(run, "valid_loss"))
    assert len(kept) == 8
    assert validations == [kept[0], kept[-1]]
    assert sum(line.startswith("  ") for line in err) == 2 * 2
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 2 * 8


def test_an_interrupt_tells_of_the_last_validation(dataset, tmp_path, capfd):
    def interrupt(step, metrics):
        if step == 12:
            raise KeyboardInterrupt

    run = Watched(tmp_path, fail=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(run, dataset)
    last = max(losses(run, "valid_loss"))
    assert f"step {last}: validation loss" in capfd.readouterr().err


def test_a_sample_is_a_line_that_moves_no_cursor():
    from fst_lightning.display import sampled

    assert sampled("Мороз", "ова") == "  Мороз | ова"
    assert sampled("a", " red \x1b[31m\r\nand\x07") == r"  a | red \x1b[31m and\x07"


def set_terminal(monkeypatch, columns):
    """Make the error stream a terminal, and return what gets written there."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


@pytest.mark.parametrize(("columns", "figures"), [(80, 2), (60, 1), (40, 0)])
def test_a_narrow_bar_leaves_out_figures_but_neither_steps_nor_the_time(
    columns, figures, monkeypatch
):
    from fst_lightning.checkpoints import State
    from fst_lightning.display import display

    terminal = set_terminal(monkeypatch, columns)
    bar = display(State(), 149_800)
    bar.step(State(step=149_799, loss=2.5, valid_loss=2.5), 12_345.0)
    bar.close()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).splitlines()[-1]
    said = ["loss 2.5000", "validation loss 2.5000"][:figures]
    assert last.split("149799/149800")[1].split() == " ".join([", ".join(said), "-:--:--"]).split()


def test_a_terminal_gets_lines_where_it_is_asked_for(monkeypatch):
    from fst_lightning.checkpoints import State
    from fst_lightning.display import display

    terminal = set_terminal(monkeypatch, 80)
    monkeypatch.setenv("TTY_INTERACTIVE", "0")
    shown = display(State(), 3)
    shown.say("a line")
    shown.close()
    assert terminal.getvalue() == "a line\n"


def test_a_terminal_gets_a_bar(dataset, tmp_path, monkeypatch):
    terminal = set_terminal(monkeypatch, 160)
    fit(Watched(tmp_path), dataset)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "18/18" in shown
    assert re.search(r"loss \d+\.\d{4}, validation loss \d+\.\d{4}, [\d,]+ tokens/s", shown)
    assert re.search(r"step 18: validation loss \d", shown)


def test_warnings_of_a_module_are_not_hidden(dataset, tmp_path):
    class Complaining(Toy):
        def forward(self, *args, **kwargs):
            warnings.warn("look here", UserWarning, stacklevel=2)
            return super().forward(*args, **kwargs)

    with pytest.warns(UserWarning, match="look here"):
        fit(Watched(tmp_path), dataset, Complaining(), lightning={"max_steps": 1})


# the ends of what can be asked


def test_nothing_to_validate_on_ends_with_the_last_weights(tmp_path):
    small = write_dataset(tmp_path / "data", train=3, valid=0)
    run = Watched(tmp_path / "run")
    module, figures = fit(run, small)
    assert kept(figures).keys() == {"steps", "tokens", "loss"}
    assert figures["steps"] == 3
    last = load_file(run.directory / "checkpoints/step-000003/model.safetensors")
    assert torch.equal(module.mix.weight, last["mix.weight"])
    again, _ = fit(Watched(run.directory), small)
    assert_equal_weights(again, module)


def test_nothing_to_train_on_is_an_error(tmp_path):
    empty = write_dataset(tmp_path / "data", train=0, valid=3)
    with pytest.raises(UserError, match="there are no training samples"):
        fit(Watched(tmp_path / "run"), empty)


def test_an_interval_longer_than_an_epoch_counts_across_epochs(dataset, tmp_path):
    run = Watched(tmp_path)
    fit(run, dataset, lightning={"max_epochs": 3, "val_check_interval": 20})
    assert list(losses(run, "valid_loss")) == [20, 40, 51]  # and after the last step


def test_the_default_is_ten_epochs_validated_each(dataset, tmp_path):
    run = Watched(tmp_path)
    fit(run, dataset, lightning={"accumulate_grad_batches": 30})
    assert list(losses(run)) == list(losses(run, "valid_loss")) == list(range(1, 11))


def test_a_validation_before_the_first_step_does_not_count(dataset, tmp_path):
    run = Watched(tmp_path)
    arguments = {"max_epochs": 1, "accumulate_grad_batches": 9, "val_check_interval": 4}
    _, figures = fit(run, dataset, lightning=arguments, sample_prompts=["a"])
    assert list(losses(run, "valid_loss")) == [1, 3]
    lines = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 1, 3]
    assert figures["best_step"] in {1, 3}


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"max_steps": 0}, 0),
        ({"max_steps": 7, "max_epochs": 3}, 7),
        ({"max_epochs": 1, "limit_train_batches": 0.5}, 8),
        ({"fast_dev_run": 2}, 2),
    ],
    ids=json.dumps,
)
def test_training_ends_when_it_should(arguments, steps, dataset, tmp_path):
    run = Watched(tmp_path)
    _, figures = fit(run, dataset, lightning=arguments)
    assert figures["steps"] == len(losses(run)) == steps


def test_the_number_of_steps_is_known_before(dataset, tmp_path):
    run = Watched(tmp_path / "run")
    assert build().planned_steps(dataset, run) == STEPS
    assert build(lightning={"max_steps": 7}).planned_steps(dataset, run) == 7
    assert build(lightning={}, minutes=1.0).planned_steps(dataset, run) is None
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "changed", "planned"),
    [
        ({}, {}, None),
        ({"val_check_interval": 4}, {}, None),
        ({"val_check_interval": 0.25}, {}, None),
        ({"check_val_every_n_epoch": 2, "max_epochs": 3}, {}, None),
        ({"check_val_every_n_epoch": 2, "max_epochs": 4, "val_check_interval": 0.4}, {}, None),
        ({"check_val_every_n_epoch": 2, "max_steps": 25, "val_check_interval": 0.4}, {}, None),
        ({"check_val_every_n_epoch": 2, "max_steps": 30, "max_epochs": 9}, {}, None),
        ({"val_check_interval": 0.4, "accumulate_grad_batches": 3, "max_steps": 11}, {}, None),
        ({"val_check_interval": 17}, {}, None),
        ({"limit_val_batches": 1}, {"batch_size": 3}, (2, 1 / 3)),
        ({"limit_val_batches": 0.5}, {"batch_size": 3}, (2, 0.5)),
        ({"limit_val_batches": 0}, {}, (0, 1)),
    ],
    ids=str,
)
def test_the_number_of_validations_is_known_before(arguments, changed, planned, dataset, tmp_path):
    run = Watched(tmp_path)
    arguments = {"max_epochs": 2, **arguments}
    trainer = build(lightning=arguments, **changed)
    steps = trainer.planned_steps(dataset, run)
    number, share = trainer.planned_validations(dataset, run, steps)
    if planned is not None:
        assert (number, share) == pytest.approx(planned)
    fit(run, dataset, lightning=arguments, **changed)
    assert number == len(losses(run, "valid_loss"))


def test_a_trial_validates_and_writes_when_it_should_and_else_trains_alike(dataset, tmp_path):
    run, trial = Watched(tmp_path / "run"), Watched(tmp_path / "trial", fail=dying(4))
    fit(run, dataset)
    torch.manual_seed(SEED)
    trial.directory.mkdir()
    with pytest.raises(Killed):
        build().for_trial(2).fit(
            Toy(), dataset, ToyTokenizer(), trial, lambda prompts: ["" for _ in prompts]
        )
    expected = losses(run)
    assert losses(trial) == {step: expected[step] for step in (1, 2, 3, 4)}
    assert list(losses(trial, "valid_loss")) == [2]
    assert steps_kept(trial) == ["step-000002"]
    never = Watched(tmp_path / "never", fail=dying(STEPS))
    never.directory.mkdir()
    with pytest.raises(Killed):
        build().for_trial(10**9).fit(
            Toy(), dataset, ToyTokenizer(), never, lambda prompts: ["" for _ in prompts]
        )
    assert list(losses(never, "valid_loss")) == []
    assert steps_kept(never) == []


def test_training_ends_when_its_time_is_over(dataset, tmp_path):
    run = Watched(tmp_path)
    arguments = {"max_time": {"seconds": 1}, "max_epochs": 10_000}
    changed = {"lightning": arguments, "checkpoint_every": 1000, "log_text_samples": False}
    _, figures = fit(run, dataset, **changed)
    assert 1 < figures["steps"] < 100_000
    assert fit(Watched(tmp_path), dataset, **changed)[1] == figures


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lightning": {"gradient_clip_algorithm": "no"}}, "[trainer.lightning] `gradient_clip_al"),
        ({"lightning": {"strategy": "no"}}, "[trainer.lightning] "),
        (
            {"lightning": {"strategy": "fsdp", "devices": 2}, "device": "cpu"},
            "[trainer.lightning] The strategy `fsdp` requires a GPU accelerator",
        ),
        ({"lightning": {"max_time": "soon"}}, "[trainer.lightning] "),
        (
            {"lightning": {"limit_train_batches": 0.01}},
            "[trainer.lightning] You requested to check 0",
        ),
        (
            {"lightning": {"val_check_interval": 18, "check_val_every_n_epoch": 1}},
            "[trainer.lightning] val_check_interval = 18: an epoch has 17 batches. Leave out",
        ),
    ],
    ids=str,
)
def test_what_lightning_refuses_is_one_line(changed, message, dataset, tmp_path):
    with pytest.raises(UserError) as refused:
        fit(Watched(tmp_path), dataset, **changed)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_weights_of_which_some_rows_train_alone_are_not_divided(dataset, tmp_path):
    module = new_module()
    module.mix.weight.no_weight_decay = True
    with pytest.raises(UserError, match='strategy = "fsdp2": this model trains some rows'):
        fit(Watched(tmp_path), dataset, module, lightning={"strategy": "fsdp2", "max_steps": 1})


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_one_line(device, dataset, tmp_path):
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if here[device]:
        pytest.skip(f"{device} is here")
    with pytest.raises(
        UserError, match=re.escape(f'[trainer] device = "{device}": torch finds none')
    ):
        fit(Watched(tmp_path), dataset, device=device)


@pytest.mark.parametrize("said", [None, "7"])
def test_few_compiled_products_are_kept_unless_somebody_wants_more(
    said, dataset, tmp_path, monkeypatch
):
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
        if said is not None:
            monkeypatch.setenv(name, said)
    fit(Watched(tmp_path), dataset, lightning={"max_steps": 1})
    assert {os.environ[name] for name in names} == {said or "128"}


# settings


def test_arguments_are_those_of_the_installed_lightning():
    import pytorch_lightning as pl
    from fst_lightning.arguments import DECIDED, EARLIER, TrainerArguments

    signature = inspect.signature(pl.Trainer.__init__).parameters
    hints = typing.get_type_hints(pl.Trainer.__init__)
    names = set(signature) - {"self"}
    fields = TrainerArguments.model_fields
    assert set(fields) | set(DECIDED) == names
    assert not set(fields) & set(DECIDED)
    assert not set(EARLIER) & names
    for name, field in fields.items():
        assert members(field.annotation) == {t for t in members(hints[name]) if written(t)}, name
    changed = {name for name, f in fields.items() if f.default != signature[name].default}
    assert changed == {
        "check_val_every_n_epoch", "devices", "enable_model_summary", "gradient_clip_val",
        "log_every_n_steps", "num_sanity_val_steps",
    }  # fmt: skip


def members(annotation):
    union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    return set(typing.get_args(annotation)) if union else {annotation}


def written(annotation):
    """Whether TOML can write it."""
    plain = {int, float, str, bool, type(None), list[int], dict[str, int]}
    return annotation in plain or typing.get_origin(annotation) is typing.Literal


def told(**values):
    cls = registry().find("trainer", "lightning").settings_class()
    with pytest.raises(ValidationError) as wrong:
        validate(cls, values)
    return list(problems(wrong.value, cls, "[trainer]"))


def test_unknown_arguments_are_refused_with_a_suggestion():
    assert told(lightning={"max_epoch": 1, "no_such": 2}, batch_sise=1) == [
        "[trainer] batch_sise: unknown key. Did you mean 'batch_size'?",
        "[trainer] lightning.max_epoch: unknown key. Did you mean 'max_epochs'?",
        "[trainer] lightning.no_such: unknown key.",
    ]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("gpus", 'device = "cuda" in [trainer]'),
        ("tpu_cores", "device in [trainer]"),
        ("row_log_interval", "log_every_n_steps"),
        ("resume_from_checkpoint", "nothing: an unfinished run is continued"),
        ("progress_bar_refresh_rate", "nothing: a terminal gets a bar, anything else gets lines"),
        ("amp_level", "precision in [trainer]"),
        ("distributed_backend", "strategy"),
        ("auto_lr_find", "learning_rate in [trainer]"),
        ("checkpoint_callback", "checkpoint_every in [trainer]"),
        ("weights_summary", "enable_model_summary"),
    ],
)
def test_arguments_of_earlier_lightning_are_refused_with_todays(name, instead):
    assert told(lightning={name: 1}) == [
        f"[trainer] lightning.{name} = 1: Lightning no longer has this argument. Write {instead}."
    ]


def test_what_is_written_instead_exists():
    from fst_lightning.arguments import DECIDED, EARLIER, TrainerArguments

    keys = registry().find("trainer", "lightning").settings_class().model_fields
    for name, instead in {**EARLIER, **DECIDED}.items():
        key, _, place = instead.partition(" in ")
        known = {"[trainer]": keys, "[run]": ("root",), "[dataset]": ("max_sample_length",)}
        if not instead.startswith("nothing: "):
            assert key.split(" = ")[0] in known.get(place, TrainerArguments.model_fields), name


@pytest.mark.parametrize("name", ["logger", "callbacks", "plugins", "precision", "accelerator"])
def test_what_fst_decides_is_refused_with_its_own_key(name):
    (line,) = told(lightning={name: "auto"})
    assert line.startswith(f"[trainer] lightning.{name} = 'auto': FST decides this. Write ")


def test_wrong_values_are_told_with_their_place():
    assert told(batch_size=0, learning_rate="fast", lightning={"max_epochs": "many"}) == [
        "[trainer] batch_size = 0: should be greater than or equal to 1.",
        "[trainer] learning_rate = 'fast': not a number.",
        "[trainer] lightning.max_epochs = 'many': not an integer.",
    ]
    (line,) = told(lightning={"max_epochs": -1})
    assert "max_epochs or max_steps must have a limit" in line


@pytest.mark.parametrize("every", [0, -1, 0.0])
def test_a_validation_every_no_batch_is_refused(every):
    (line,) = told(lightning={"val_check_interval": every})
    assert f"val_check_interval = {every}: write more than 0" in line


def test_betas_are_shares():
    assert told(betas=[1.0, 0.9]) == ["[trainer] betas.0 = 1.0: should be less than 1."]


def test_a_pipeline_names_all_of_it_at_once():
    with pytest.raises(SettingsError) as wrong:
        load_pipeline(None, ["trainer.use=lightning", "trainer.lightning.gpus=1", "trainer.beta=1"])
    assert len(wrong.value.problems) == 2
    pipeline = load_pipeline(
        None,
        [
            "trainer.use=lightning",
            "trainer.lightning.gradient_clip_val=5.0",
            "trainer.num_cycles=5",
        ],
    )
    assert pipeline.trainer.settings.lightning.gradient_clip_val == 5.0


def test_checking_settings_imports_nothing_heavy():
    heavy = {"torch", "pytorch_lightning", "tensorboard", "rich"}
    code = f"import sys, fst_lightning.settings; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
