"""The trainer `lightning` in a job of SLURM: its signals are FST's, and what Lightning would do is not done."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import test_lightning as toys

VARIABLES = {
    "SLURM_JOB_ID": "4711", "SLURM_JOBID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "node1",
    "SLURM_JOB_NODELIST": "node1", "SLURM_NNODES": "1", "SLURM_NTASKS_PER_NODE": "1",
}  # fmt: skip

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGUSR1"),
    pytest.mark.usefixtures("one_thread"),
]


dataset = toys.dataset  # its fixture


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job of one task, whose `scontrol` would leave a trace."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/scontrol"
    script.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/requeued\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def test_a_job_of_one_task_trains_and_ends_as_any_other(job, dataset):
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    from fst_core.pipeline.process import leads, started_together

    assert SLURMEnvironment.detect()
    assert leads()
    assert not started_together()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    run, plain = toys.Watched(job / "run"), toys.Watched(job / "plain")
    module, figures = toys.fit(run, dataset)
    assert {number: signal.getsignal(number) for number in before} == before
    assert figures["steps"] == toys.STEPS
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name)
        expected, _ = toys.fit(plain, dataset)
    toys.assert_equal_weights(module, expected)
    assert not (job / "requeued").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, 138), (signal.SIGTERM, 143)])
def test_its_signals_write_a_checkpoint_of_fst_and_nothing_is_requeued(
    number, status, job, dataset
):
    run = toys.Watched(job / "run")
    with pytest.raises(SystemExit) as ended:
        toys.fit(run, dataset, toys.signalling(13, True, number=number))
    assert ended.value.code == status
    assert toys.steps_kept(run)[-1] == "step-000004"
    assert list(job.rglob("*.ckpt")) == []
    assert not (job / "requeued").exists()
    _, figures = toys.fit(run, dataset)
    assert figures["steps"] == toys.STEPS
    assert list(toys.losses(run)) == list(range(1, toys.STEPS + 1))
