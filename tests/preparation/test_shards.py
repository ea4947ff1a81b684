"""Shards: what is prepared apart and joined has the bytes of what one run makes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fst_core.artefacts import verify
from fst_core.cli.dataset import command as dataset_command
from fst_core.cli.prepare import command as prepare_command
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError, SettingsError, UserError
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import join_shards, plan_prepare, prepare, prepare_shard
from fst_core.plugins import registry
from fst_core.preparation.shards import Shard

pytestmark = pytest.mark.usefixtures("work")

WORDS = ["the", "cat", "sat", "on", "a", "mat,", "Зоя", "пила", "чай;", "日本", "😀"]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr("fst_core.preparation.shards.BLOCK", 7)


def write_documents(count=200):
    """Texts, conversations and labels, some of them twice, and some too short."""
    rng = random.Random(228)
    lines = []
    for _ in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 40)))
        kind = rng.choice(["text", "text", "label", "conversation", "again"])
        if kind == "conversation":
            messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
            lines.append({"messages": messages})
        elif kind == "again" and lines:
            lines.append(rng.choice(lines))
        else:
            lines.append({"text": text, **({"meta": "label"} if kind == "label" else {})})
    Path("train.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")


def pipeline(use="bytes", valid=None, **dataset):
    documents = {"use": "jsonl", "train": "train.jsonl", **({"valid": valid} if valid else {})}
    tables = {
        "run": {"name": "corpus"},
        "documents": documents,
        "tokenizer": {"use": use, **({"vocab_size": 300} if use == "bpe" else {})},
        "dataset": {"max_sample_length": 50, **dataset},
    }
    return check_pipeline("pipeline.toml", tables)


def shards_of(made, count):
    plan = plan_prepare(made)
    return [prepare_shard(made, plan, Shard(i + 1, count), lambda _: None) for i in range(count)]


def produced(directory):
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    found = {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}
    said = json.loads(found.pop("fst.json"))
    del said["created"]
    said.get("encoder", {}).pop("on_bytes", None)
    return found, said


@pytest.mark.parametrize(
    ("use", "count", "options"),
    [
        ("bytes", 1, {}),
        ("bytes", 3, {"deduplicate": True, "ignore_meta_prob": 0.5}),
        ("bytes", 40, {"valid": "train.jsonl"}),
        ("bpe", 3, {}),
    ],
)
def test_joined_shards_are_what_one_run_makes(use, count, options):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    write_documents()
    made = pipeline(use, **options)
    shards = shards_of(made, count)
    assert sorted(p.name for p in shards) == sorted(f"{i + 1}-of-{count}" for i in range(count))
    random.Random(1).shuffle(shards)
    joined = join_shards(shards, Path("joined/1"))
    whole = prepare(made, plan_prepare(made), lambda _: None)
    assert produced(joined.directory) == produced(whole.directory)
    assert verify(joined.directory)
    assert joined.train.loss is not None
    plan = plan_prepare(made)
    assert (plan.action, plan.directory) == ("reuse", whole.directory)


def test_each_document_is_in_one_shard():
    write_documents()
    shards = shards_of(pipeline(), 3)
    counts = [json.loads((shard / "fst.json").read_bytes())["counts"] for shard in shards]
    kept = [sum(c[f"number_of_{s}_documents"] for s in ("train", "valid")) for c in counts]
    assert sum(kept) == 200
    assert max(kept) - min(kept) <= 7
    with pytest.raises(ArtefactError, match="of kind 'shard', not a dataset"):
        Dataset.open(shards[0])


def test_a_shard_that_is_there_is_used_and_one_of_something_else_made_again():
    write_documents()
    first = shards_of(pipeline(), 2)
    told = []
    made = pipeline()
    assert prepare_shard(made, plan_prepare(made), Shard(1, 2), told.append) == first[0]
    assert told == [f"prepare: up to date: {first[0]}"]
    changed = pipeline(max_sample_length=40)
    prepare_shard(changed, plan_prepare(changed), Shard(1, 2), lambda _: None)
    with pytest.raises(ArtefactError, match="made from something else than"):
        join_shards(first, Path("joined"))
    assert not Path("joined").exists()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([0, 1], r"of 3 shards, these are missing: \[3\]"),
        ([0, 1, 2, 2], r"a shard is given twice: \[1, 2, 3, 3\]"),
        ([0, 1, 2, 3], r"the shard 1/2, and .* is 1/3"),
    ],
)
def test_shards_that_are_not_all_there_are_is_are_not_joined(chosen, message):
    write_documents()
    made = pipeline()
    shards = [*shards_of(made, 3), shards_of(made, 2)[0]]
    with pytest.raises(ArtefactError, match=message):
        join_shards([shards[i] for i in chosen], Path("joined"))
    assert not Path("joined").exists()


def test_a_shard_that_was_damaged_on_its_way_is_not_joined_and_is_made_again():
    write_documents()
    made = pipeline()
    shards = shards_of(made, 2)
    corpus = shards[1] / "train/corpus.npy"
    whole = corpus.read_bytes()
    corpus.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(ArtefactError, match=r"2-of-2/train/corpus\.npy: its content is not what"):
        join_shards(shards, Path("joined"))
    assert not Path("joined").exists()
    (shards[1] / "fst.json").unlink()
    prepare_shard(made, plan_prepare(made), Shard(2, 2), lambda _: None)
    assert corpus.read_bytes() == whole
    assert verify(join_shards(shards, Path("joined")).directory)


def test_a_damaged_shard_is_told():
    write_documents()
    shards = shards_of(pipeline(), 2)
    np.save(shards[1] / "blocks.npy", np.zeros((3, 4), np.int64))
    with pytest.raises(ArtefactError, match=r"2-of-2/blocks\.npy"):
        join_shards(shards, Path("joined"))
    shutil.rmtree(shards[0] / "train")
    with pytest.raises(ArtefactError, match=r"1-of-2/train/.*missing"):
        join_shards(shards, Path("joined"))


def test_shards_without_a_sample_are_told_when_they_are_joined():
    Path("train.jsonl").write_text('{"text": "a"}\n{"text": "b"}')
    shards = shards_of(pipeline(), 2)
    with pytest.raises(UserError, match="no document to train on"):
        join_shards(shards, Path("joined"))


def test_the_commands_do_it():
    write_documents()
    table = '[documents]\nuse = "jsonl"\ntrain = "train.jsonl"\n[tokenizer]\nuse = "bytes"\n'
    Path("pipeline.toml").write_text(f'[run]\nname = "corpus"\n{table}')
    made = [said(prepare_command, "-q", "--shard", f"{i}/2") for i in (1, 2)]
    assert made == [f"data/datasets/corpus/1.shards/{i}-of-2" for i in (1, 2)]
    assert (
        said(dataset_command, "join", "data/datasets/corpus/1", *made) == "data/datasets/corpus/1"
    )
    assert said(prepare_command) == "data/datasets/corpus/1"
    with pytest.raises(UserError, match="exists"):
        said(dataset_command, "join", "data/datasets/corpus/1", *made)
    for wrong in ("0/2", "3/2", "1", "a/b", "1/2/3"):
        with pytest.raises(UserError, match="--shard"):
            said(prepare_command, "--shard", wrong)


def said(command, *arguments):
    return CliRunner().invoke(command, arguments, catch_exceptions=False).stdout.strip()


# executors


def test_an_unknown_executor_and_its_settings_are_told():
    with pytest.raises(SettingsError, match=r"\[dataset.executor\] use = \"lokal\".*'local'"):
        pipeline(executor="lokal")
    with pytest.raises(SettingsError, match=r"\[dataset.executor\] worker: .*'workers'"):
        pipeline(executor={"use": "local", "worker": 2})


@pytest.mark.parametrize("use", ["bytes", "bpe"])
def test_processes_make_the_same_dataset(use):
    if registry().find("tokenizer", use).missing():
        pytest.skip("needs tokenizers")
    write_documents()
    told = []
    executor = {"use": "local", "workers": 2}
    made = pipeline(use, root="parallel", executor=executor, shards=3)
    parallel = prepare(made, plan_prepare(made), told.append)
    made = pipeline(use, root="one")
    one = prepare(made, plan_prepare(made), lambda _: None)
    assert {**produced(parallel.directory)[0], "description.json": b""} == {
        **produced(one.directory)[0],
        "description.json": b"",
    }
    assert parallel.fingerprint == one.fingerprint
    assert "prepare: 3 of 3 shards are made, by 'local'" in told
    assert sorted(p.name for p in Path("parallel/corpus").iterdir()) == [".lock", "1"]


def test_an_error_in_a_shard_is_told_and_leaves_nothing():
    write_documents()
    with Path("train.jsonl").open("a") as file:
        file.write('\n{"text": 3}')
    made = pipeline(executor="local", shards=2, valid="train.jsonl")
    plan = plan_prepare(made)
    with pytest.raises(UserError, match=r"train\.jsonl:201: 'text' is not a string"):
        prepare(made, plan, lambda _: None)
    assert [p.name for p in Path("data/datasets/corpus").iterdir()] == [".lock"]
