"""Shards and what they are joined to: there whole or not at all, whenever the work ends (P1, P3)."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import environment_of

from fst_core.artefacts import verify
from fst_core.errors import FstError
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import join_shards, plan_prepare, prepare_shard
from fst_core.preparation.shards import Shard

pytestmark = [
    pytest.mark.usefixtures("work"),
    pytest.mark.skipif(os.name != "posix", reason="needs fork, signals and limits of POSIX"),
]
WORDS = ["the", "cat", "sat", "on", "a", "mat,", "Зоя", "пила", "чай;", "日本", "😀"]
TABLES = {
    "run": {"name": "corpus"},
    "documents": {"use": "jsonl", "train": "train.jsonl"},
    "tokenizer": {"use": "bytes"},
}


def write_documents(count, words=20):
    rng = random.Random(228)
    texts = (" ".join(rng.choices(WORDS, k=rng.randint(1, 2 * words))) for _ in range(count))
    Path("train.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), "utf-8")


WORK = '''
import json, sys
from pathlib import Path
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import join_shards, plan_prepare, prepare_shard
from fst_core.preparation import shards
shards.BLOCK = 7
tables, what = json.loads(sys.argv[1]), sys.argv[2]
pipeline = check_pipeline("pipeline.toml", tables)
plan = plan_prepare(pipeline)
plan.depends.settle()  # no child has the thread that looks at the documents

def shard(index):
    return prepare_shard(pipeline, plan, shards.Shard(index, 3), lambda _: None)

made = [shard(index) for index in (1, 2, 3)] if what == "join" else []
target = Path("joined/1") if made else Path("data/datasets/corpus/1.shards/2-of-3")
beside = [] if made else [".2-of-3"]

def make():
    return join_shards(made, target).directory if made else shard(2)

def before():
    """Let a shard be there that was made from something else."""
    if what == "another shard":
        other = check_pipeline("pipeline.toml", {**tables, "dataset": {"max_sample_length": 40}})
        prepare_shard(other, plan_prepare(other), shards.Shard(2, 3), lambda _: None)
'''
KILLED = (
    WORK
    + '''
import shutil
from killing import kill_everywhere, produced
from fst_core.artefacts import verify

def check():
    """What a killed child left is nothing or whole; another one makes it whole, and cleans up."""
    there = target.exists() and verify(target)["counts"]["max_sample_length"] != 40
    if not there:
        assert make() == target
    assert produced(target) == expected
    left = sorted(p.name for p in target.parent.iterdir() if p.name != ".lock")
    assert left == [*beside, target.name], left
    shutil.rmtree(target)
    return there

expected = produced(make())
shutil.rmtree(target)
kill_everywhere(make, check, before)
'''
)
FULL = (
    """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
"""
    + WORK
    + """
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 100_000))
try:
    make()
except OSError as error:
    sys.exit(f"refused: {error.strerror}")
"""
)


def asked(script, what):
    command = [sys.executable, "-W", "error", "-c", script, json.dumps(TABLES), what]
    environment = environment_of(["."])
    return subprocess.run(
        command, env=environment, capture_output=True, check=False, text=True, timeout=100
    )


@pytest.mark.parametrize("what", ["shard", "another shard", "join"])
def test_what_is_killed_is_there_whole_or_not_and_the_next_one_has_the_same_bytes(what):
    write_documents(120)
    done = asked(KILLED, what)
    assert done.returncode == 0, done.stderr
    operations, published, timed = json.loads(done.stdout)
    assert operations > 15  # it was killed at each of them
    assert 0 < published < operations  # before the result was there, and after
    assert timed > 0


@pytest.mark.parametrize("what", ["shard", "join"])
def test_what_is_too_large_to_be_written_leaves_nothing(what):
    """Files may have 20,000 bytes here, so that a write fails half way as on a full disk."""
    write_documents(700)
    done = asked(FULL, what)
    assert (done.returncode, done.stderr) == (1, "refused: File too large\n")
    root = Path("joined" if what == "join" else "data/datasets/corpus/1.shards")
    assert {path.name for path in root.iterdir()} <= {".lock", ".2-of-3"}


def test_a_disk_that_gets_full_is_told_at_once_and_nothing_is_left(monkeypatch):
    """A file system of 8 MB in memory, which only root may mount."""
    Path("small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", "small"]
    if shutil.which("mount") is None or subprocess.call(mount):
        pytest.skip("needs the right to mount a file system")
    monkeypatch.setattr("fst_core.preparation.preparation.check_space", lambda *_: None)

    def shard_in(root):
        pipeline = check_pipeline("pipeline.toml", {**TABLES, "dataset": {"root": root}})
        return prepare_shard(pipeline, plan_prepare(pipeline), Shard(1, 1), lambda _: None)

    try:
        write_documents(100)
        kept = join_shards([shard_in("small")], Path("small/kept/1")).directory
        write_documents(3_000, words=1_000)
        large = shard_in("large")
        for make in (
            lambda: shard_in("small/other"),
            lambda: join_shards([large], Path("small/new/1")),
        ):
            begun = time.perf_counter()
            with pytest.raises(FstError, match=r"No space left on device: the [\d.]+ MB") as raised:
                make()
            assert time.perf_counter() - begun < 5
            assert raised.value.exit_status == 1
        left = [path for folder in ("other", "new") for path in Path("small", folder).rglob("*")]
        assert {path.name for path in left if path.is_file()} == {".lock"}
        assert verify(kept)
        assert verify(large)
    finally:
        subprocess.run(["umount", "small"], check=True)
