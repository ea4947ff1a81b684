"""The stages together: documents become a model, and only what changed is done again."""

from __future__ import annotations

import asyncio
import json
import random
from types import ModuleType

import pytest

from fst_core import Request, hookimpl, open_engine
from fst_core.artefacts import verify
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError, SettingsError, UserError
from fst_core.pipeline import train as train_stage
from fst_core.pipeline.evaluate import figures_of
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.stages import explain, run_stages
from fst_core.plugins import registry

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "dog",
    "run",
    "to",
    "its",
    "red",
    "house",
    "by",
    "noon",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(228)
    documents = [" ".join(rng.choices(WORDS, k=40)) for _ in range(60)]
    (tmp_path / "train.txt").write_text("\n[END_OF_DOCUMENT]\n".join(documents))
    return tmp_path


def tables(**changes):
    """A pipeline that is done in a second; a change is written as `trainer__batch_size=4`."""
    made = {
        "run": {"name": "tiny"},
        "documents": {"use": "delimited", "train": "train.txt"},
        "tokenizer": {"use": "bytes"},
        "dataset": {"max_sample_length": 32},
        "model": {"use": "gpt2", "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2},
        "trainer": {"use": "lightning", "batch_size": 8, "lightning": {"max_steps": 4}},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        table = made
        for name in path:
            table = table.setdefault(name, {})
        table[last] = value
    return made


def pipeline(**changes):
    return check_pipeline("pipeline.toml", tables(**changes))


def run(until="evaluate", *, fresh=False, **changes):
    lines = []
    outcome = run_stages(pipeline(**changes), until, lines.append, fresh=fresh)
    return outcome, lines


def actions(until="evaluate", **changes):
    return [(plan.action, plan.directory.name) for plan in explain(pipeline(**changes), until)]


@pytest.fixture
def trained(folder):
    """What a first run made."""
    return run()[0]


def test_documents_become_a_model_that_transformers_opens(trained):
    import torch
    from transformers import AutoModelForCausalLM

    assert trained.dataset.as_posix() == "data/datasets/tiny/1"
    assert trained.model.as_posix() == "runs/tiny/1/model"
    manifest = verify(trained.model)
    assert manifest["made_from"]["fingerprint"] == Dataset.open(trained.dataset).fingerprint
    module = AutoModelForCausalLM.from_pretrained(trained.model)
    assert module.generation_config.eos_token_id == 257
    engine = open_engine(trained.model, ["sampler.0.temperature=0"])
    request = Request(prompt="the cat", max_new_tokens=12)
    ours = asyncio.run(engine.generate(request)).ids
    prompt = torch.tensor([[256, *b"the cat"]])
    theirs = module.generate(prompt, max_new_tokens=12, do_sample=False, pad_token_id=258)
    assert list(ours) == [i for i in theirs[0, prompt.shape[1] :].tolist() if i < 256][: len(ours)]


def test_figures_are_kept_beside_the_model(trained):
    figures = trained.figures["perplexity"]
    assert figures["loss"] > 0
    assert figures["bits_per_byte"] > 0
    kept = json.loads((trained.model.parent / "evaluation.json").read_text())
    assert kept["figures"] == trained.figures


def test_what_is_up_to_date_is_not_done_again(trained):
    assert actions() == [("reuse", "1"), ("reuse", "1"), ("reuse", "evaluation.json")]
    outcome, lines = run()
    assert outcome == trained
    assert all("up to date" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"documents__end_of_document": "###"}, ["make", "make", "make"]),
        ({"dataset__min_sample_length": 9}, ["make", "make", "make"]),
        ({"run__seed": 1}, ["make", "make", "make"]),
        ({"model__n_layer": 2}, ["reuse", "make", "make"]),
        ({"trainer__learning_rate": 0.01}, ["reuse", "make", "make"]),
        ({"trainer__lightning__gradient_clip_val": 0.5}, ["reuse", "make", "make"]),
        ({"evaluate": [{"use": "perplexity", "batch_size": 3}]}, ["reuse", "reuse", "make"]),
        ({"sampler": [{"use": "greedy"}]}, ["reuse", "reuse", "reuse"]),
    ],
)
def test_a_change_makes_anew_what_depends_on_it(trained, changes, expected):
    plans = explain(pipeline(**changes), "evaluate")
    assert [plan.action for plan in plans] == expected
    first = next((plan for plan in plans if plan.action == "make"), None)
    if first is not None:
        key = next(iter(changes)).replace("__", ".").removeprefix("run.seed")
        assert any(key.split(".")[-1] in reason for reason in first.reasons)


def test_a_device_that_is_not_here_matters_only_where_something_is_to_be_trained(folder):
    import torch

    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(UserError, match=f'device = "{absent}"'):
        run(trainer__device=absent)
    assert not (folder / "data").exists()  # it is known before any work
    trained, _ = run()
    assert run(trainer__device=absent)[0] == trained


def test_changed_documents_are_noticed_by_their_content(trained, folder):
    text = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text(text + "\none more line")
    plan = explain(pipeline(), "prepare")[0]
    assert (plan.action, plan.directory.name) == ("make", "2")
    assert any(
        reason.startswith("changed since 1: documents.train.content") for reason in plan.reasons
    )
    (folder / "train.txt").write_text(text)
    assert actions("prepare") == [("reuse", "1")]


def test_another_run_leaves_the_first_as_it_was(trained):
    before = (trained.model / "model.safetensors").read_bytes()
    outcome, lines = run(trainer__learning_rate=0.01)
    assert outcome.dataset == trained.dataset
    assert outcome.model.as_posix() == "runs/tiny/2/model"
    assert "train: changed since 1: trainer.learning_rate: None -> 0.01" in lines
    assert (trained.model / "model.safetensors").read_bytes() == before
    assert run()[0] == trained


def test_fresh_begins_a_new_run(trained):
    outcome, _ = run(fresh=True)
    assert outcome.model.as_posix() == "runs/tiny/2/model"
    weights = [o.model.joinpath("model.safetensors").read_bytes() for o in (trained, outcome)]
    assert weights[0] == weights[1]  # the same seed on the same machine


def test_a_run_that_was_cut_off_goes_on(monkeypatch, folder):
    def broken(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(train_stage, "save_model", broken)
        with pytest.raises(OSError, match="No space"):
            run("train")
    assert not (folder / "runs/tiny/1/model").exists()
    assert actions("train") == [("reuse", "1"), ("continue", "1")]
    outcome, lines = run("train")
    assert outcome.model.as_posix() == "runs/tiny/1/model"
    assert any("goes on in" in line for line in lines)


def test_samples_longer_than_the_models_positions_are_known_before_any_work(folder):
    with pytest.raises(SettingsError, match=r"max_sample_length = 33: more than the 32 positions"):
        run(dataset__max_sample_length=33)
    assert not (folder / "data").exists()


def test_a_dataset_can_be_named(trained, folder):
    changes = {"dataset__path": str(trained.dataset), "run__name": "other"}
    made = tables(**changes)
    del made["documents"], made["tokenizer"]
    outcome = run_stages(check_pipeline("pipeline.toml", made), "train", lambda _: None)
    assert outcome.dataset == trained.dataset
    assert outcome.model.as_posix() == "runs/other/1/model"
    with pytest.raises(ArtefactError, match="made from something else"):
        run(**changes, tokenizer__use="gpt2")
    run("prepare", **changes)
    (folder / "train.txt").write_text("other documents")
    with pytest.raises(ArtefactError, match=r"documents\.train\.content"):
        run("prepare", **changes)


def test_a_model_is_not_measured_on_ids_of_another_tokenizer(trained):
    other, _ = run("prepare", tokenizer={"use": "bpe", "vocab_size": 300})
    with pytest.raises(ArtefactError, match="different tokenizers"):
        figures_of(pipeline().evaluators, trained.model, Dataset.open(other.dataset), print)


def test_observers_see_the_stages(folder):
    seen = []

    observer = ModuleType("observer")

    @hookimpl
    def fst_stage_started(stage):
        seen.append(f"{stage} started")

    @hookimpl
    def fst_stage_finished(stage, artefact):
        assert artefact.exists()
        seen.append(f"{stage} finished")

    @hookimpl
    def fst_stage_failed(stage, error):
        seen.append(f"{stage} failed: {type(error).__name__}")

    @hookimpl
    def fst_metrics(step):
        raise RuntimeError("an observer's own error, which changes nothing")

    for hook in (fst_stage_started, fst_stage_finished, fst_stage_failed, fst_metrics):
        setattr(observer, hook.__name__, hook)
    registry().hooks.register(observer, name="observer")
    try:
        run()
        run()
        (folder / "train.txt").write_text("a")
        with pytest.raises(UserError, match="min_sample_length = 8"):
            run("prepare")
    finally:
        registry().hooks.unregister(name="observer")
    stages = ("prepare", "train", "evaluate")
    expected = [f"{stage} {what}" for stage in stages for what in ("started", "finished")]
    assert seen == [*expected, "prepare started", "prepare failed: UserError"]


def test_no_documents_is_the_users_error(folder):
    (folder / "train.txt").write_text(" \n")
    with pytest.raises(UserError, match="no document to train on"):
        run("prepare")
    assert list((folder / "data/datasets/tiny").iterdir()) == [folder / "data/datasets/tiny/.lock"]
