"""One dataset, however many work on it and in whatever state a machine keeps the files (P9)."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.prepare import plan_prepare, prepare


def pipeline(**dataset):
    tables = {
        "run": {"name": "corpus"},
        "documents": {"use": "text", "train": "documents"},
        "tokenizer": {"use": "bytes"},
        "dataset": dataset,
    }
    return check_pipeline("pipeline.toml", tables)


def made(**dataset):
    asked = pipeline(**dataset)
    return prepare(asked, plan_prepare(asked), lambda _: None).directory


def arrays(directory):
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*.npy")}


@pytest.fixture
def documents(work):
    rng = random.Random(9)
    folder = work / "documents"
    folder.mkdir()
    for name in "defabc":
        (folder / f"{name}.txt").write_text(" ".join(rng.choices(["one", "Зоя", "2"], k=99)))
    return folder


def test_workers_change_nothing(documents):
    expected = arrays(made(root="alone"))
    assert len(expected) == 4
    for workers in (1, 2, 4):
        executor = {"use": "local", "workers": workers}
        assert arrays(made(root=f"by-{workers}", executor=executor, shards=3)) == expected


def test_the_order_of_a_folder_and_the_times_of_its_files_change_nothing(documents, monkeypatch):
    expected = arrays(made(root="first"))
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, what: reversed(list(rglob(self, what))))
    for number, path in enumerate(documents.iterdir()):
        os.utime(path, (number, number))
    assert plan_prepare(pipeline(root="first")).action == "reuse"
    assert arrays(made(root="again")) == expected
