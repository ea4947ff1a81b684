"""`fst dataset`: what is in a dataset, and whether it is what was written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fst_core.cli.dataset import command
from fst_core.dataset import Samples
from fst_core.dataset.statistics import LengthBin, length_bins, spread
from fst_core.errors import ArtefactError
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.stages import run_stages

pytestmark = pytest.mark.usefixtures("work")


@pytest.fixture
def dataset(work):
    texts = [f"document {number} \x1b[31m " + "word " * (number % 40) for number in range(200)]
    Path("train.txt").write_text("\n***\n".join(texts))
    tables = {
        "run": {"name": "corpus"},
        "documents": {"use": "delimited", "train": "train.txt", "end_of_document": "***"},
        "tokenizer": {"use": "bytes"},
        "dataset": {"max_sample_length": 100},
    }
    return run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None).dataset


def asked(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)


def test_a_sound_dataset_is_verified(dataset):
    done = asked("verify", dataset)
    assert done.exit_code == 0
    assert done.output.startswith(f"{dataset}: all 6 files, ")


def test_what_keeps_its_size_is_found_by_its_digest(dataset):
    corpus = dataset / "train/corpus.npy"
    data = bytearray(corpus.read_bytes())
    for change in ("a bit", "zeros"):
        changed = bytearray(data)
        if change == "a bit":
            changed[-5] ^= 1
        else:
            changed[-len(data) // 100 :] = bytes(len(data[-len(data) // 100 :]))
        corpus.write_bytes(changed)
        with pytest.raises(
            ArtefactError, match=r"corpus\.npy: its content is not what was written"
        ):
            asked("verify", dataset)


def test_what_has_another_size_or_is_missing_is_found_too(dataset):
    starts = dataset / "train/sample_start_positions.npy"
    data = starts.read_bytes()
    starts.write_bytes(data[:-1])
    with pytest.raises(ArtefactError, match="bytes long instead of"):
        asked("verify", dataset)
    starts.write_bytes((dataset / "valid/sample_start_positions.npy").read_bytes())
    with pytest.raises(ArtefactError, match="bytes long instead of"):
        asked("verify", dataset)
    starts.write_bytes(data)
    (dataset / "fst.json").unlink()
    with pytest.raises(ArtefactError, match=r"it has no fst\.json"):
        asked("verify", dataset)


def test_a_dataset_is_shown_with_figures_lengths_and_samples(dataset):
    done = asked("show", dataset, "--samples", "3")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert lines[0] == f"dataset {dataset}"
    for line in ("vocabulary 259 ids", "dtype uint16", "train", "valid", "samples by length"):
        assert line in lines
    assert sum(line.startswith("sample ") for line in lines) == 6
    assert any(line.startswith("| ⟨begin⟩document ") for line in lines)
    assert "⟨end⟩" in done.output
    assert "\x1b" not in done.output  # what a text holds moves no cursor
    documents = sum(int(line.split()[1]) for line in lines if line.startswith("documents "))
    assert documents == 200


def test_bytes_a_token_count_what_carries_loss(work):
    turns = [{"role": "user", "content": "What?" * 9}, {"role": "assistant", "content": "That."}]
    lines = [json.dumps({"messages": turns}) for _ in range(40)]
    Path("chats.jsonl").write_text("\n".join(lines))
    tables = {
        "run": {"name": "chats"},
        "documents": {"use": "jsonl", "train": "chats.jsonl"},
        "tokenizer": {"use": "bytes"},
        "dataset": {"max_sample_length": 200},
    }
    stages = run_stages(check_pipeline("pipeline.toml", tables), "prepare", lambda _: None)
    output = asked("show", stages.dataset).output
    said = dict(re.findall(r"^  (\S.*?)  +(\S+)$", output, re.MULTILINE))
    tokens, text = (
        int(said[name].replace(",", "")) for name in ("tokens with loss", "bytes of text with loss")
    )
    assert tokens < int(said["tokens"].replace(",", "")) / 2
    assert said["bytes a token with loss"] == f"{text / tokens:.2f}"
    assert "bytes of text" not in said
    assert "That.⟨end⟩" in output


def test_a_run_in_place_of_a_dataset_is_told(work):
    Path("runs/poems/1").mkdir(parents=True)
    Path("runs/poems/1/run.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"It is a run: name a dataset"):
        asked("show", "runs/poems/1")


def test_a_directory_of_datasets_names_the_newest(dataset):
    with pytest.raises(ArtefactError, match=re.escape(f"the newest is {dataset}")):
        asked("show", dataset.parent)


def test_showing_imports_no_torch(dataset):
    code = (
        "import sys\nfrom fst_core.cli.dataset import command\n"
        f"command(['show', {str(dataset)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_lengths_are_counted_by_powers_of_two():
    lengths = [1, 2, 3, 4, 7, 8, 9, 100, 100, 100]
    starts = np.cumsum([0, *lengths[:-1]])
    samples = Samples(np.zeros(sum(lengths), np.uint16), starts, text_bytes=0)
    assert length_bins(samples, 100) == [
        LengthBin(1, 1, 1),
        LengthBin(2, 3, 2),
        LengthBin(4, 7, 2),
        LengthBin(8, 15, 2),
        LengthBin(16, 31, 0),
        LengthBin(32, 63, 0),
        LengthBin(64, 99, 0),
        LengthBin(100, 100, 3),
    ]
    assert length_bins(samples, 128)[-1] == LengthBin(128, 128, 0)


def test_samples_to_show_are_spread_from_the_first_to_the_last():
    samples = Samples(np.zeros(50, np.uint16), np.arange(0, 50, 5), text_bytes=0)
    assert spread(samples, 3) == [0, 4, 9]
    assert spread(samples, 99) == list(range(10))
    assert spread(samples, 1) == [0]
    assert spread(samples, 0) == []
