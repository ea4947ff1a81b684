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
import torch
from fakes.tiny import tiny, write
from safetensors.torch import load_file

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
DIVIDED = ["-s", "trainer.lightning.devices=2", "-s", "trainer.lightning.strategy=fsdp2"]


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


def assert_as_one_process(folder, settings=()):
    pipeline = load_pipeline(folder / "pipeline.toml", ["run.name=alone", *settings])
    run_stages(pipeline, "train", lambda _: None)
    expected, found = figures(folder, "alone"), figures(folder)
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


def stopped(command):
    """Train until a first validation, and stop it there."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        while "validation loss" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 143, rest


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
@pytest.mark.parametrize("together", [TOGETHER, DIVIDED], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one_stop_together_and_one_goes_on(together, folder):
    """SIGTERM to the first ends both; no process stays; the rest is trained by one process alone."""
    stopped([*FST, "train", *together, "-s", "trainer.checkpoint_every=1"])
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


@pytest.mark.slow
def test_weights_may_be_divided_later_and_texts_come_from_all_of_them(folder):
    """One process begins; two, each with a share of the weights, go on as it would have."""
    prompts = ["-s", "trainer.log_text_samples=true", "-s", "trainer.sample_prompts=['1', '2 ']"]
    stopped([*FST, "train", *prompts])
    done = subprocess.run([*FST, "train", *DIVIDED, *prompts], check=False, capture_output=True,
                          text=True, env=environment(), timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [run.name for run in numbered(folder / "runs/tiny")] == ["1"]
    assert_as_one_process(folder, prompts[1::2])
    alone, found = (folder / f"runs/{name}/1" for name in ("alone", "tiny"))
    texts = [(run / "samples.jsonl").read_text("utf-8") for run in (alone, found)]
    assert texts[1] == texts[0]
    weights = [load_file(run / "model/model.safetensors") for run in (alone, found)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_loss_in_chunks_needs_whole_weights(folder):
    done = subprocess.run([*FST, "train", *DIVIDED, "-s", "trainer.chunked_loss=true"], check=False,
                          capture_output=True, text=True, env=environment(), timeout=300)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        'chunked_loss: not with strategy = "fsdp2". Leave it out'
    )


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
            ["trainer.lightning.devices=2", "trainer.lightning.strategy=fsdp2"],
            ["trainer.sample_prompts=['a']", "trainer.checkpoint_every=7"],
            ["trainer.batch_size=8"],
        )
    ]
    first, *same, other = [plan.fingerprint for plan in plans]
    assert same == [first, first, first]
    assert other != first
