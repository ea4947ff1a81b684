"""The trainer `lightning` in several processes: one training, whoever starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.tiny import tiny, write

from fst_core.artefacts.publish import numbered
from fst_core.errors import UserError
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.process import leads
from fst_core.pipeline.stages import run_stages

PIPELINE = tiny(
    "dataset.valid_share=0.2", "trainer.batch_size=4", "trainer.learning_rate=0.001",
    "trainer.device=cpu", "trainer.precision=fp32", "trainer.dropout=0.0",
    "trainer.checkpoint_every=4", "trainer.log_text_samples=false",
    "trainer.lightning.max_steps=80", "trainer.lightning.accumulate_grad_batches=2",
    "trainer.lightning.val_check_interval=9",
)  # fmt: skip
TEXT = "\n[END_OF_DOCUMENT]\n".join(
    f"{n} roses are red" + " and violets are blue" * (n % 3) for n in range(60)
)
FST = [str(Path(sys.executable).with_name("fst"))]  # Lightning runs its file again
TOGETHER = ["-s", "trainer.lightning.devices=2", "-s", "trainer.lightning.strategy=ddp"]


@pytest.fixture(autouse=True)
def folder(work):
    write(work, PIPELINE, TEXT)
    return work


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def figures(folder, name="tiny"):
    """What the trainer told of each step."""
    found = {}
    for line in (folder / "runs" / name / "1/metrics.jsonl").read_text().splitlines():
        told = json.loads(line)
        found.setdefault(told["step"], {}).update(told["metrics"])
    return found


def assert_as_one_process(folder, name="tiny"):
    run_stages(load_pipeline(folder / "pipeline.toml", ["run.name=alone"]), "train", lambda _: None)
    expected, found = figures(folder, "alone"), figures(folder, name)
    assert set(found) == set(expected) == set(range(1, 81))
    for step, told in expected.items():
        for key in {"loss", "gradient_norm", "learning_rate", "valid_loss", "bits_per_byte"} & set(
            told
        ):
            assert found[step][key] == pytest.approx(told[key], abs=1e-5, rel=1e-5), (step, key)


def processes_of(folder):
    """Return the processes whose working directory is a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            pass
    return [process for process in found if process != os.getpid()]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_two_processes_train_as_one_stop_together_and_one_goes_on(folder):
    """SIGTERM to the first ends both; no process stays; the rest is trained by one process alone."""
    command = [*FST, "train", *TOGETHER, "-s", "trainer.checkpoint_every=1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        while "validation loss" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 143, rest
    deadline = time.monotonic() + 30
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(folder) == []
    reached = max(figures(folder))
    assert 4 <= reached < 80
    assert (folder / f"runs/tiny/1/checkpoints/step-{reached:06d}").is_dir()
    run_stages(load_pipeline(folder / "pipeline.toml"), "train", lambda _: None)
    assert [run.name for run in numbered(folder / "runs/tiny")] == ["1"]
    assert_as_one_process(folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_process_outlives_a_first_one_that_is_killed(folder):
    with subprocess.Popen(
        [*FST, "train", *TOGETHER], stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        while "validation loss" not in process.stderr.readline():
            assert process.poll() is None
        assert len(processes_of(folder)) == 2
        process.kill()
        deadline = time.monotonic() + 60
        while processes_of(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = processes_of(folder)
        for number in left:
            os.kill(number, signal.SIGKILL)
    assert left == []


@pytest.mark.slow
def test_processes_that_torchrun_starts_prepare_once_and_train_together(folder):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--no-python",
        *FST,
    ]
    done = subprocess.run(
        [*command, "train", *TOGETHER],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"runs/tiny/1/model\s*", done.stdout)
    assert done.stderr.count("-> data/datasets/tiny/1") == 1
    assert done.stderr.count("trained 80 steps") == 1
    assert_as_one_process(folder)


# whose turn it is


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "1"}, False),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "1"}, True),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash"}, True),
    ],
    ids=str,
)
def test_the_first_process_leads(variables, first, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert leads() is first


def test_a_process_that_follows_a_finished_training_ends_at_once(folder, monkeypatch):
    pipeline = load_pipeline(folder / "pipeline.toml", ["trainer.lightning.max_steps=1"])
    run_stages(pipeline, "train", lambda _: None)
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    told = []
    with pytest.raises(SystemExit) as ended:
        run_stages(pipeline, "evaluate", told.append)
    assert ended.value.code == 0
    assert told == []
    assert sorted(folder.rglob("*")) == before


def test_processes_started_together_cannot_begin_afresh(folder, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="--fresh: the processes started together"):
        run_stages(load_pipeline(folder / "pipeline.toml"), "train", lambda _: None, fresh=True)


def test_how_many_devices_train_changes_no_run(folder):
    from fst_core.pipeline.train import plan_train

    plans = [
        plan_train(load_pipeline(folder / "pipeline.toml", overrides), "dataset")
        for overrides in (
            [],
            ["trainer.lightning.devices=2", "trainer.lightning.strategy=ddp"],
            ["trainer.sample_prompts=['a']", "trainer.checkpoint_every=7"],
            ["trainer.batch_size=8"],
        )
    ]
    first, *same, other = [plan.fingerprint for plan in plans]
    assert same == [first, first]
    assert other != first
