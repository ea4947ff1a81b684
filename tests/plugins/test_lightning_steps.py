"""The trainer `lightning`: what a step learns from, in how much memory, and when training ends."""

from __future__ import annotations

import json
import math
import os
import re
import time
from itertools import pairwise

import numpy as np
import pytest
import test_lightning as toys
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fst_core.artefacts import write_manifest
from fst_core.dataset import (
    IGNORED,
    Batching,
    Dataset,
    Samples,
    SplitWriter,
    collate,
    longest_first,
    token_dtype,
)
from fst_core.errors import FstError, UserError
from fst_core.plugins import registry

ONE_EPOCH = {"max_epochs": 1, "limit_val_batches": 0}


dataset = toys.dataset  # its fixture
pytestmark = pytest.mark.usefixtures("one_thread")


def ragged(count, longest=512):
    """Samples of lengths as documents have them: many short ones, few long ones."""
    lengths = np.random.default_rng(228).lognormal(4.5, 0.8, count).astype(np.int64)
    lengths = lengths.clip(2, longest)
    corpus = np.arange(int(lengths.sum())).astype(np.uint16)
    return Samples(corpus, np.cumsum(lengths) - lengths, 1)


# batches by length


@pytest.mark.parametrize(
    "how",
    [
        {"batch_size": 16},
        {"batch_size": 4, "accumulate": 3},
        {"batch_tokens": 2048},
        {"batch_tokens": 2048, "accumulate": 4},
    ],
    ids=str,
)
def test_of_ragged_documents_less_than_5_percent_is_padding(how):
    samples = ragged(2000)
    batching = Batching(samples, **how)
    steps = list(batching.steps(228, 0))
    batches = [collate(samples, indices) for step in steps for indices in step]
    assert 1 - samples.tokens / sum(batch.ids.size for batch in batches) < 0.05
    assert sum(batch.tokens for batch in batches) == samples.tokens
    assert sorted(i for batch in batches for i in batch.indices.tolist()) == list(range(2000))
    assert len(batches) == len(batching)
    assert {len(step) for step in steps[:-1]} == {how.get("accumulate", 1)}
    if "batch_tokens" in how:
        sizes = [batch.ids.size for batch in batches]
        assert max(sizes) <= 2048
        assert np.mean(sizes[:-1]) > 0.85 * 2048


def test_batches_are_shuffled_although_each_is_of_one_length():
    samples = ragged(2000)
    lengths = samples.lengths()
    first, second = (
        [indices for (indices,) in Batching(samples, 16).steps(228, epoch)] for epoch in (0, 1)
    )
    means = [lengths[indices].mean() for indices in first]
    assert abs(np.corrcoef(means[:-1], range(len(means) - 1))[0, 1]) < 0.2
    together = {frozenset(indices.tolist()) for indices in first}
    same = together & {frozenset(indices.tolist()) for indices in second}
    assert len(same) < 0.1 * len(together)  # where lengths are rare


def test_samples_of_nearly_one_length_meet_whatever_their_lengths():
    lengths = np.r_[np.full(190, 64), np.arange(30, 40)]
    samples = Samples(np.zeros(lengths.sum(), np.uint16), np.cumsum(lengths) - lengths, 1)
    steps = list(Batching(samples, 20).steps(228, 0))
    assert [len(indices) for (indices,) in steps] == [20] * 9 + [20]
    short = [int((lengths[indices] < 64).sum()) for (indices,) in steps]
    assert sum(short) == 10
    assert max(short) <= 4


@pytest.mark.parametrize("epoch", [0, 3])
def test_beginning_later_is_a_seek(epoch):
    batching = Batching(ragged(100), 4, accumulate=3)
    whole = [indices.tolist() for step in batching.steps(228, epoch) for indices in step]
    for first in range(0, len(batching), 3):
        rest = [i.tolist() for step in batching.steps(228, epoch, first) for i in step]
        assert rest == whole[first:]


def test_a_step_is_the_same_however_many_batches_it_has():
    samples = ragged(100)
    apart, together = Batching(samples, 4, accumulate=3), Batching(samples, 12)
    for step, (whole,) in zip(apart.steps(1, 0), together.steps(1, 0), strict=True):
        assert np.concatenate(step).tolist() == whole.tolist()


def test_processes_share_a_batch_whatever_their_number(dataset):
    from fst_lightning.batches import TrainingBatches, ValidationBatches

    def rows(batches):
        return [
            [(ids, labels) for ids, labels in zip(b.ids.tolist(), b.labels.tolist(), strict=True)]
            for b in batches
        ]

    how = {"epoch": lambda: 0, "limit": 1.0}
    settings = toys.settings()
    alone = list(TrainingBatches(dataset.train, settings, 1, **how))
    for world in (2, 3, 5):
        parts = [
            list(TrainingBatches(dataset.train, settings, 1, rank=rank, world=world, **how))
            for rank in range(world)
        ]
        for same in zip(alone, *parts, strict=True):
            assert len({(b.targets, b.tokens, b.size, str(b.indices)) for b in same}) == 1
        for whole, *shares in zip(*map(rows, [alone, *parts]), strict=True):
            learned = [row for share in shares for row in share if set(row[1]) != {IGNORED}]
            assert sorted(learned) == sorted(whole)
        valid = [list(ValidationBatches(dataset.valid, settings, r, world)) for r in range(world)]
        assert {len(part) for part in valid} == {len(longest_first(dataset.valid, 4))}


def test_batch_tokens_takes_as_many_samples_as_fit(dataset, tmp_path):
    run = toys.Watched(tmp_path)
    _, figures = toys.fit(run, dataset, batch_tokens=96, lightning={"max_epochs": 2})
    counted = len(Batching(dataset.train, batch_tokens=96))
    assert figures["steps"] == 2 * counted
    with pytest.raises(
        UserError, match="batch_tokens = 23: less than one sample may have, which is 24"
    ):
        toys.fit(toys.Watched(tmp_path / "b"), dataset, batch_tokens=23)


def test_what_carries_no_loss_is_not_learned(tmp_path):
    """Ids behind the mask teach nothing: others in their place, learned from too, give another loss."""
    directory = tmp_path / "data"
    ids = np.random.default_rng(1).integers(0, toys.VOCABULARY, 40).astype(np.uint32)
    loss = np.ones(40, np.uint8)
    loss[3:9] = loss[20:33] = 0
    starts = np.arange(0, 40, 10)
    counts = {"max_sample_length": 10}
    for split in ("train", "valid"):
        with SplitWriter(directory / split, token_dtype(toys.VOCABULARY)) as writer:
            writer.write(ids, starts, starts + 10, loss)
        counts |= {
            f"number_of_{split}_{what}": n
            for what, n in (("tokens", 40), ("samples", 4), ("bytes", 40))
        }
    write_manifest(directory, "dataset", counts=counts, fingerprint="masked")
    masked = Dataset.open(directory)
    run = toys.Watched(tmp_path / "run")
    module = toys.new_module(0.0)
    wanted = [i for i in range(40) if i % 10 and loss[i]]
    texts = torch.from_numpy(ids.astype(np.int64)).view(4, 10)
    with torch.no_grad():
        likely = module(texts).logits.log_softmax(-1).view(40, -1)
    expected = -sum(likely[i - 1, int(ids[i])] for i in wanted) / len(wanted)
    _, figures = toys.fit(run, masked, module, lightning={"max_steps": 1})
    assert toys.losses(run)[1] == pytest.approx(expected.item(), rel=1e-5)
    assert figures["tokens"] == len(wanted)


# memory


class Small(toys.Toy):
    """A module on a device with memory for so many ids at a time."""

    def __init__(self, room, when=(True, False)):
        super().__init__(0.0)
        self.room = room
        self.when = when
        self.most = 0

    def forward(self, input_ids, **kwargs):
        if input_ids.numel() > self.room and self.training in self.when:
            raise torch.OutOfMemoryError
        self.most = max(self.most, input_ids.numel())
        return super().forward(input_ids, **kwargs)


def small(room, **how):
    torch.manual_seed(toys.SEED)
    return Small(room, **how)


def test_out_of_memory_halves_the_batch_and_the_step_stays_what_it_was(dataset, tmp_path, capfd):
    roomy, tight = toys.Watched(tmp_path / "roomy"), toys.Watched(tmp_path / "tight")
    toys.fit(roomy, dataset, small(10**6))
    module, _ = toys.fit(tight, dataset, small(40, when=(True,)))
    assert 24 <= module.most <= 96
    for key in ("loss", "gradient_norm", "valid_loss"):
        assert toys.losses(tight, key) == pytest.approx(toys.losses(roomy, key), rel=1e-4)
    said = [line for line in capfd.readouterr().err.splitlines() if "out of memory" in line]
    assert len(said) == 2
    assert re.fullmatch(
        r"step \d+: out of memory\. From here on a batch is computed in 2 pieces of at most 2 samples; "
        "a step learns from the same samples as before",
        said[0],
    )
    first, second = (int(line.split()[1].rstrip(":")) for line in said)
    calls = 0  # what was begun in vain does not count
    batching = Batching(dataset.train, 4, accumulate=3)
    steps = [batches for epoch in range(3) for batches in batching.steps(toys.SEED, epoch)]
    for step, batches in enumerate(steps, 1):
        pieces = 1 if step < first else 2 if step < second else 4
        calls += sum(len(torch.zeros(len(rows)).chunk(pieces)) for rows in batches)
    assert module.calls == calls


def test_a_run_with_a_halved_batch_resumes_exactly(dataset, tmp_path):
    whole = toys.Watched(tmp_path / "whole")
    expected, _ = toys.fit(whole, dataset, small(60))
    with pytest.raises(toys.Killed):
        toys.fit(toys.Watched(tmp_path / "run", fail=toys.dying(11)), dataset, small(60))
    run = toys.Watched(tmp_path / "run")
    module, _ = toys.fit(run, dataset, small(60))
    toys.assert_equal_weights(module, expected)
    assert toys.losses(run) == {
        s: x for s, x in toys.losses(whole).items() if s in toys.losses(run)
    }


def test_a_sample_that_does_not_fit_ends_training_in_one_line(dataset, tmp_path):
    with pytest.raises(
        FstError, match=r"step \d+: not even one sample of \d+ ids fits into memory"
    ):
        toys.fit(toys.Watched(tmp_path), dataset, small(2))


class Headed(toys.Toy):
    """Says which layer is its last, as modules of transformers do."""

    def __init__(self, bias=False, scale=1.0):
        super().__init__(0.0)
        self.head = nn.Linear(16, toys.VOCABULARY, bias=bias)
        self.scale = scale
        self.logits = 0

    def get_output_embeddings(self):
        return self.head

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        self.logits = max(self.logits, output.logits.numel())
        output.logits = output.logits * self.scale
        return output


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 7 * toys.VOCABULARY, 10**9])
def test_a_loss_in_chunks_has_the_gradients_of_the_whole(bias, chunk, monkeypatch):
    from fst_lightning import loss

    monkeypatch.setattr(loss, "CHUNK", chunk)
    torch.manual_seed(1)
    module = Headed(bias)
    ids = torch.randint(0, toys.VOCABULARY, (3, 9))
    labels = ids.clone()
    labels[0, 4:] = labels[1, 2] = IGNORED
    whole = loss.summed_loss(module(ids).logits, labels)
    whole.backward()
    expected = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    chunked = loss.ChunkedLoss.of(module)
    assert chunked.agrees(ids)
    found = chunked(ids, labels)
    (found * 1.0).backward()
    assert found.item() == pytest.approx(whole.item(), rel=1e-6)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-6)
    module.zero_grad()
    module.head.requires_grad_(False)
    chunked(ids, labels).backward()
    assert module.head.weight.grad is None
    torch.testing.assert_close(module.mix.weight.grad, expected["mix.weight"], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert chunked(ids, labels).item() == pytest.approx(whole.item(), rel=1e-6)


def test_many_logits_are_computed_in_chunks(dataset, tmp_path, monkeypatch):
    from fst_lightning import language_module

    torch.manual_seed(1)
    initial = Headed().state_dict()
    runs = {}
    for name, many, setting in (
        ("whole", 2**26, "auto"),
        ("auto", 0, "auto"),
        ("set", 2**26, True),
    ):
        monkeypatch.setattr(language_module, "_MANY_LOGITS", many)
        module = Headed()
        module.load_state_dict(initial)
        run = runs[name] = toys.Watched(tmp_path / name)
        toys.fit(run, dataset, module, chunked_loss=setting)
        assert (module.logits > 24 * toys.VOCABULARY) == (name == "whole")
    for name in ("auto", "set"):
        assert toys.losses(runs[name]) == pytest.approx(toys.losses(runs["whole"]), rel=1e-4)


def test_a_module_that_changes_its_logits_later_keeps_them_whole(dataset, tmp_path, monkeypatch):
    from fst_lightning import language_module

    monkeypatch.setattr(language_module, "_MANY_LOGITS", 0)
    module = Headed(scale=0.1)
    toys.fit(toys.Watched(tmp_path / "a"), dataset, module, lightning=ONE_EPOCH)
    assert module.logits > 24 * toys.VOCABULARY
    with pytest.raises(UserError, match="chunked_loss: this model changes its logits"):
        toys.fit(toys.Watched(tmp_path / "b"), dataset, Headed(scale=0.1), chunked_loss=True)
    with pytest.raises(UserError, match="chunked_loss: this model has no plain linear last layer"):
        toys.fit(toys.Watched(tmp_path / "c"), dataset, chunked_loss=True)


class Recomputing(toys.Toy):
    """Can compute its inner values anew."""

    recomputes = False
    has = ()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs):
        assert gradient_checkpointing_kwargs == {"use_reentrant": False}
        self.recomputes = True

    def gradient_checkpointing_disable(self):
        self.recomputes = False

    def forward(self, *args, **kwargs):
        self.has = (*self.has, self.recomputes)
        return super().forward(*args, **kwargs)


def test_gradient_checkpointing_is_the_modules(dataset, tmp_path):
    module = Recomputing()
    toys.fit(
        toys.Watched(tmp_path / "a"),
        dataset,
        module,
        gradient_checkpointing=True,
        lightning=ONE_EPOCH,
    )
    assert set(module.has) == {True}
    assert not module.recomputes
    with pytest.raises(UserError, match="gradient_checkpointing: this model cannot"):
        toys.fit(toys.Watched(tmp_path / "b"), dataset, gradient_checkpointing=True)


# unlikelihood


def test_unlikelihood_is_that_of_each_different_id_before():
    from fst_lightning.loss import summed_unlikelihood

    torch.manual_seed(1)
    ids = torch.tensor([[1, 2, 1, 3, 2, 2], [4, 0, 4, 0, 0, 0]])
    labels = ids.clone()
    labels[1, 3:] = IGNORED
    logits = torch.randn(2, 6, 5)
    expected = 0.0
    for row in range(2):
        for at in range(5):
            if labels[row, at + 1] != IGNORED:
                seen = set(ids[row, : at + 1].tolist()) - {int(ids[row, at + 1])}
                p = logits[row, at].softmax(-1)
                expected -= sum(math.log(1 - p[c]) for c in seen)
    assert summed_unlikelihood(logits, ids, labels).item() == pytest.approx(expected, rel=1e-5)


def test_unlikelihood_makes_what_was_there_less_likely(dataset, tmp_path):
    """The more it counts, the less; the validation loss stays the plain one."""
    probabilities = []
    for alpha in (0.0, 1.0, 10.0):
        run = toys.Watched(tmp_path / str(alpha))
        module = toys.new_module(0.0)
        module.tokens.weight.data *= 0.1
        module, figures = toys.fit(run, dataset, module, unlikelihood_alpha=alpha)
        assert figures["valid_loss"] == pytest.approx(
            toys.mean_loss(module, dataset.valid), rel=1e-5
        )
        ids = torch.from_numpy(
            dataset.valid[int(dataset.valid.lengths().argmax())].astype(np.int64)
        )
        with torch.no_grad():
            likely = module(ids[None]).logits[0].softmax(-1)
        seen = [
            likely[at, sorted(set(ids[: at + 1].tolist()) - {int(ids[at + 1])})].sum()
            for at in range(len(ids) - 1)
        ]
        probabilities.append(torch.stack(seen).mean().item())
    assert probabilities[0] > probabilities[1] > probabilities[2]


# when training ends


def test_minutes_are_what_training_takes(dataset, tmp_path, capfd):
    """Validations and samples are among them; of steps that are all alike, the end is met closely."""
    changed = {"minutes": 0.05, "lightning": {"val_check_interval": 50}, "checkpoint_every": 1000}

    def sample(prompts):
        time.sleep(0.02)
        return ["" for _ in prompts]

    run = toys.Watched(tmp_path)
    _, figures = toys.fit(run, dataset, sample=sample, **changed)
    newest = max((tmp_path / "checkpoints").glob("step-*/state.json"))
    state = json.loads(newest.read_text())["state"]
    assert state["step"] == state["total"] == figures["steps"]
    assert state["elapsed"] == pytest.approx(3.0, abs=1.5)  # machines stall
    assert state["elapsed"] > state["seconds"] + 0.02 * len(toys.losses(run, "valid_loss"))
    assert re.search(r"^0\.05 minutes are about \d+ steps$", capfd.readouterr().err, re.MULTILINE)
    told = toys.losses(run, "learning_rate")
    assert told[figures["steps"]] < 0.05 * max(told.values())  # the schedule ends there


def test_what_was_found_of_minutes_holds_for_a_run_that_goes_on(dataset, tmp_path):
    """Also what was found after the checkpoint that it goes on from."""
    changed = {"minutes": 0.04, "lightning": {"val_check_interval": 50}, "checkpoint_every": 10}
    file = tmp_path / "checkpoints/minutes.json"

    def found():
        return json.loads(file.read_text())["totals"] if file.is_file() else []

    def die(step, metrics):
        if len(found()) > 1 and step > found()[-1][0] + 3:
            raise toys.Killed

    first, run = toys.Watched(tmp_path, fail=die), toys.Watched(tmp_path)
    with pytest.raises(toys.Killed):
        toys.fit(first, dataset, **changed)
    before, reached = found(), first.told[-1][0]
    _, figures = toys.fit(run, dataset, **changed)
    assert found()[: len(before)] == before
    assert figures["steps"] == found()[-1][1] > reached
    for key in ("loss", "learning_rate"):
        whole = toys.losses(first, key)
        again = {step: value for step, value in toys.losses(run, key).items() if step in whole}
        assert again == {step: whole[step] for step in again}
    assert min(toys.losses(run)) <= reached  # it may have died at the first step after a checkpoint


def simulated(budget, step_at, validation=0.0, every=10**9, stop=10**6):
    """Train with a clock of its own: return the steps, the seconds, and what was found."""
    step, seconds, total = 0, 0.0, None
    found = []
    while step != total and step < stop:
        step += 1
        seconds += step_at(step)
        if (told := budget.total(step, seconds, 100 * step)) is not None:
            found.append((step, told))
            total = told
        if step % every == 0 or step == total:
            seconds += validation
            budget.validated(validation)
    return step, seconds, found


@pytest.mark.parametrize(
    ("step_at", "validation", "valid_tokens", "every"),
    [
        (lambda step: 1.0, 0.0, 0, 10**9),
        (lambda step: 0.1 if step > 20 else 0.5, 0.0, 0, 10**9),  # slow at first
        (lambda step: 1.0, 20.0, 300, 50),  # samples make a validation 20 times what was reckoned
        (lambda step: 0.2 + step / 2000, 3.0, 300, 100),  # ever slower
    ],
)
def test_a_budget_is_met_within_a_step_and_a_validation(
    step_at, validation, valid_tokens, every, tmp_path
):
    from fst_lightning.budget import Budget, Corpus

    budget = Budget(10.0, Corpus(100.0, valid_tokens, every), tmp_path / "minutes.json")
    step, seconds, found = simulated(budget, step_at, validation, every)
    assert abs(seconds - 600) <= step_at(step) + validation
    assert found[0][0] <= 50  # 10 s, which is less than 5 %
    assert len(found) < 20


def test_a_budget_finds_again_what_it_had_found(tmp_path):
    from fst_lightning.budget import Budget, Corpus

    corpus, file = Corpus(100.0, 0, 1.0), tmp_path / "minutes.json"
    _, _, found = simulated(Budget(1.0, corpus, file), lambda step: 1.0, stop=40)
    assert len(found) > 1
    again = Budget(1.0, corpus, file)
    assert again.before(found[0][0]) == found[:1]
    _, seconds, same = simulated(again, lambda step: 2.0)  # on a machine that is half as fast
    assert same[: len(found)] == found
    assert seconds == pytest.approx(60, abs=40)
    assert Budget(2.0, corpus, file).totals == {}
    file.write_text("{")
    assert Budget(1.0, corpus, file).totals == {}


def test_the_schedule_never_jumps_when_the_number_of_steps_is_found_anew():
    from fst_lightning.schedule import Schedule

    schedule = Schedule(None, 4)
    rates = [schedule(step) for step in range(11)]
    assert rates == [0, 0.25, 0.5, 0.75, *[1.0] * 7]
    for after, total in ((10, 50), (30, 90), (60, 80)):
        kept = [schedule(step) for step in range(after + 1)]
        schedule.expect(total, after)
        assert [schedule(step) for step in range(after + 1)] == kept
    rates = [schedule(step) for step in range(10, 85)]
    assert rates == sorted(rates, reverse=True)
    assert max(a - b for a, b in pairwise(rates)) < 0.06
    assert rates[-5:] == [0.0] * 5
    assert schedule.total == 80


def test_minutes_and_steps_do_not_go_together():
    (line,) = toys.told(minutes=1.0, lightning={"max_epochs": 3})
    assert "minutes and lightning.max_epochs both say when to end: leave one out" in line


def test_training_stops_when_it_gets_worse_for_too_long(dataset, tmp_path):
    changed = {"lightning": {"max_epochs": 60}, "learning_rate": 0.05, "patience": 2}
    whole = toys.Watched(tmp_path / "whole")
    module, figures = toys.fit(whole, dataset, **changed)
    valid = toys.losses(whole, "valid_loss")
    assert figures["steps"] < 60 * 17
    assert figures["best_step"] == list(valid)[-3]
    assert figures["valid_loss"] == min(valid.values()) == valid[figures["best_step"]]
    assert toys.mean_loss(module, dataset.valid) == pytest.approx(figures["valid_loss"], rel=1e-6)
    last = len(whole.told)
    for moment in (last - 19, last - 1):  # before the last but one validation, and in the last
        directory = tmp_path / str(moment)
        with pytest.raises(toys.Killed):
            toys.fit(toys.Watched(directory, fail=toys.dying_at(moment)), dataset, **changed)
        again, same = toys.fit(toys.Watched(directory), dataset, **changed)
        assert toys.kept(same) == toys.kept(figures)
        toys.assert_equal_weights(again, module)


def test_patience_that_is_over_is_over_after_a_signal_too(dataset, tmp_path):
    changed = {"lightning": {"max_epochs": 60}, "learning_rate": 0.05, "patience": 2}
    whole = toys.Watched(tmp_path / "whole")
    _, figures = toys.fit(whole, dataset, **changed)

    def interrupt(step, metrics):
        if step == figures["steps"] and "valid_loss" in metrics:
            os.kill(os.getpid(), 2)

    with pytest.raises(KeyboardInterrupt):
        toys.fit(toys.Watched(tmp_path / "run", fail=interrupt), dataset, **changed)
    run = toys.Watched(tmp_path / "run")
    assert toys.kept(toys.fit(run, dataset, **changed)[1]) == toys.kept(figures)
    assert run.told == []


# what is chosen where nothing is said


def test_the_learning_rate_is_by_the_parameters_that_are_no_embeddings(dataset, tmp_path, capfd):
    from fst_lightning.defaults import learning_rate

    module = toys.new_module()
    inner = sum(p.numel() for p in module.parameters()) - module.tokens.weight.numel()
    expected = 0.003239 - 0.0001395 * math.log(inner)
    first = collate(dataset.train, np.array([0]))
    assert learning_rate(module, first) == pytest.approx(expected)
    run = toys.Watched(tmp_path)
    toys.fit(run, dataset, learning_rate=None, lightning=ONE_EPOCH, num_warmup_steps=1)
    assert max(toys.losses(run, "learning_rate").values()) == pytest.approx(expected)
    assert f"learning rate {expected:.2g}, by the number of parameters" in capfd.readouterr().err


def test_what_has_been_trained_before_learns_more_slowly(dataset, tmp_path):
    from fst_lightning.defaults import learning_rate

    module, _ = toys.fit(toys.Watched(tmp_path), dataset, lightning={"max_epochs": 25})
    batch = collate(dataset.train, np.arange(9))
    assert learning_rate(module, batch) == 5e-5
    module.mix.requires_grad_(False)
    module.tokens.requires_grad_(False)
    assert learning_rate(module, batch) == 2e-4  # a few of many, as with LoRA


@pytest.mark.parametrize(
    ("model", "epochs", "setting", "expected"),
    [
        ('use = "gpt2"', 3, "auto", 0.0),
        ('use = "gpt2"', 5, "auto", 0.2),
        ('use = "gpt2"\nresid_pdrop = 0.2', 3, "auto", 0.2),
        ('use = "pretrained"\npath = "x"', 3, "auto", 0.2),
        ('use = "gpt2"', 3, "model", 0.2),
        ('use = "gpt2"\nresid_pdrop = 0.2', 5, 0.3, 0.3),
        (None, 3, "auto", 0.2),
    ],
)
def test_text_that_is_seen_a_few_times_needs_no_dropout(model, epochs, setting, expected, tmp_path):
    from fst_lightning.defaults import set_dropout

    if model is not None:
        (tmp_path / "pipeline.toml").write_text(f"[model]\n{model}\n")
    module = toys.new_module()
    changed = set_dropout(module, toys.settings(dropout=setting), tmp_path, epochs)
    assert module.dropout.p == expected
    assert changed == (None if expected == 0.2 else expected)


# showing


def test_bits_per_byte_are_those_of_the_whole_validation(dataset, tmp_path):
    run = toys.Watched(tmp_path / "a")
    _, figures = toys.fit(run, dataset)
    targets = dataset.valid.tokens - len(dataset.valid)
    told = toys.losses(run, "bits_per_byte")
    valid = toys.losses(run, "valid_loss")
    scale = targets / math.log(2) / dataset.valid.text_bytes
    assert told == pytest.approx({step: loss * scale for step, loss in valid.items()})
    assert figures["bits_per_byte"] == pytest.approx(figures["valid_loss"] * scale)
    part = toys.Watched(tmp_path / "b")
    _, figures = toys.fit(part, dataset, lightning={"max_epochs": 1, "limit_val_batches": 1})
    assert not toys.losses(part, "bits_per_byte")
    assert "bits_per_byte" not in figures


def test_shares_are_told(dataset, tmp_path, capfd):
    run = toys.Watched(tmp_path)
    toys.fit(run, dataset, peak_tflops=1e-6)
    speed = toys.losses(run, "tokens_per_second")
    module = toys.new_module()
    each = 6 * sum(p.numel() for n, p in module.named_parameters() if n != "tokens.weight")
    for step, mfu in toys.losses(run, "mfu").items():
        assert mfu == pytest.approx(speed[step] * each / 1e6)
    padding = toys.losses(run, "padding_share")
    assert all(0 <= share < 0.5 for share in padding.values())
    assert any(padding.values())
    assert all(0 <= share <= 1 for share in toys.losses(run, "data_wait_share").values())
    assert re.search(r"padding, MFU \d+\.\d%", capfd.readouterr().err)


def test_a_token_takes_six_operations_a_parameter():
    from fst_lightning.utilisation import flops_per_token, peak_flops

    model = (
        registry()
        .find("model", "gpt2")
        .build(
            registry()
            .find("model", "gpt2")
            .settings_class()(n_positions=32, n_embd=16, n_layer=2, n_head=2)
        )
    )
    from fst_core.testing.toys import ToyTokenizer

    module = model.build(ToyTokenizer())
    multiplied = sum(
        p.numel() for name, p in module.named_parameters() if "wpe" not in name
    )  # wte is the last layer too
    assert flops_per_token(module, 32) == 6 * multiplied + 12 * 2 * 16 * 32
    assert peak_flops(toys.settings(), "cpu", "bf16-mixed") is None


@pytest.mark.parametrize(
    ("name", "precision", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989e12),
        ("NVIDIA H100 PCIe", "bf16-mixed", 756e12),
        ("NVIDIA A100-SXM4-40GB", "32-true", 19.5e12),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", 165e12),
        ("NVIDIA L40S", "bf16-mixed", 362e12),
        ("Something New 5000", "bf16-mixed", None),
    ],
)
def test_the_peak_is_by_the_devices_name(name, precision, expected, monkeypatch):
    from fst_lightning.utilisation import peak_flops

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert peak_flops(toys.settings(), "cuda", precision) == expected


def test_a_torn_event_file_does_no_harm(dataset, tmp_path):
    with pytest.raises(toys.Killed):
        toys.fit(toys.Watched(tmp_path, fail=toys.dying(11)), dataset)
    (file,) = (tmp_path / "tensorboard").iterdir()
    os.truncate(file, file.stat().st_size - 7)
    toys.fit(toys.Watched(tmp_path), dataset)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, toys.STEPS + 1))


def test_checkpoints_hold_finite_weights_alone(dataset, tmp_path):
    module = toys.new_module()

    def poison(step, metrics):
        if step == 7 and "loss" in metrics:
            module.mix.weight.data.fill_(math.inf)

    with pytest.raises(FstError, match="step 8: the loss is nan"):
        toys.fit(toys.Watched(tmp_path, fail=poison), dataset, module, lightning={"max_epochs": 1})
    for path in (tmp_path / "checkpoints").rglob("model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())
