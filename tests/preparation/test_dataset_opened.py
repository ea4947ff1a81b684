"""A damaged dataset is refused when it is opened, at once, and without assertions too (P2)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import plan_prepare, prepare

OPEN = """
import sys, time
from pathlib import Path
from fst_core.artefacts import verify
from fst_core.dataset import Dataset
from fst_core.errors import ArtefactError
for name, open_it in {"cut": Dataset.open, "other": Dataset.open, "bare": Dataset.open, "bit": verify}.items():
    begun = time.perf_counter()
    try:
        open_it(Path(name))
    except ArtefactError as error:
        print(error)
    if open_it is not verify and time.perf_counter() - begun > 2:  # 200 ms, on a machine that ten share
        sys.exit("it took long")
"""


def made(name, text):
    Path(f"{name}.txt").write_text(text)
    tables = {
        "run": {"name": name},
        "documents": {"use": "delimited", "train": f"{name}.txt"},
        "tokenizer": {"use": "bytes"},
    }
    pipeline = check_pipeline("pipeline.toml", tables)
    return prepare(pipeline, plan_prepare(pipeline), lambda _: None).directory


@pytest.mark.parametrize("options", [[], ["-O"]], ids=["python", "python -O"])
def test_a_damaged_dataset_is_refused_by_name(work, options):
    dataset, another = made("one", "a text of some length " * 400), made("two", "another " * 99)
    for name in ("cut", "other", "bare", "bit"):
        shutil.copytree(dataset, name)
    corpus = Path("train/corpus.npy")
    data = (dataset / corpus).read_bytes()
    ("cut" / corpus).write_bytes(data[:-1])
    ("bit" / corpus).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    starts = Path("train/sample_start_positions.npy")
    shutil.copyfile(another / starts, "other" / starts)
    Path("bare/fst.json").unlink()
    done = subprocess.run(
        [sys.executable, *options, "-c", OPEN], capture_output=True, check=True, text=True
    )
    cut, other, bare, bit = done.stdout.splitlines()
    assert cut.startswith(f"{'cut' / corpus}: {len(data) - 1} bytes long instead of")
    assert other.startswith(f"{'other' / starts}: ")
    assert "it has no fst.json" in bare
    assert bit.startswith(f"{'bit' / corpus}: its content is not what was written")
