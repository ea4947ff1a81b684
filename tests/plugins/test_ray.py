"""The executors `local` and `ray`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import plan_prepare, prepare
from fst_core.plugins import registry
from fst_core.testing import ExecutorContract


class TestLocal(ExecutorContract):
    use = "local"
    settings = {"workers": 2}


needs_ray = pytest.mark.skipif(
    bool(registry().find("executor", "ray").missing()), reason="needs ray"
)


@pytest.fixture(scope="class")
def cluster():
    """Two workers, which the tests of a class share."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
@needs_ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")  # Ray's own
class TestRay(ExecutorContract):
    use = "ray"
    settings = {"workers": 2}


def test_ray_tells_nobody_that_it_is_used():
    pytest.importorskip("ray")
    code = (
        "import fst_ray.ray; fst_ray.ray._imported(); "
        "from ray._common.usage.usage_lib import usage_stats_enabled; "
        "print(usage_stats_enabled())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_USAGE_STATS_ENABLED"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment, text=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.slow
@needs_ray
@pytest.mark.usefixtures("work")
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_of_two_workers_makes_the_dataset_of_one_run():
    lines = [{"text": f"the text number {n} of some words"} for n in range(2_000)]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    directories = []
    for name, dataset in (
        ("one", {}),
        ("ray", {"executor": {"use": "ray", "workers": 2}, "shards": 3}),
    ):
        tables = {
            "run": {"name": name},
            "documents": {"use": "jsonl", "train": "train.jsonl"},
            "tokenizer": {"use": "bytes"},
            "dataset": dataset,
        }
        made = check_pipeline("pipeline.toml", tables)
        directories.append(prepare(made, plan_prepare(made), lambda _: None).directory)
    for name in ("corpus.npy", "sample_start_positions.npy"):
        for split in ("train", "valid"):
            one, other = (directory / split / name for directory in directories)
            assert one.read_bytes() == other.read_bytes()
