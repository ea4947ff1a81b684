"""`fst compare`: where two runs differ."""

from __future__ import annotations

import json

import pytest
from fakes import fst_fixture  # noqa: F401  # a fixture is used by its name

TABLES = """
[tokenizer]
use = "bpe"
vocab_size = {vocab_size}
[trainer]
use = "lightning"
[[sampler]]
use = "standard"
[[sampler]]
use = "greedy"
"""


def write(directory, *, rate, vocab_size, digest, loss, text, **figures):
    (directory / "model").mkdir(parents=True)
    fields = {
        "stage": "train", "trainer.use": "lightning/lightning", "trainer.learning_rate": rate,
        "dataset": digest * 64, "run.seed": 228,
    }  # fmt: skip
    (directory / "run.json").write_text(json.dumps({"fingerprint": digest, "fields": fields}))
    (directory / "pipeline.toml").write_text(TABLES.format(vocab_size=vocab_size))
    figures = {"steps": 100, "valid_loss": loss} | figures
    (directory / "model/fst.json").write_text(json.dumps({"figures": figures}))
    evaluation = {"figures": {"perplexity": {"perplexity": 2.0 * loss}}}
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    lines = [{"step": step, "prompt": "To be", "text": f" {text}{step}"} for step in (50, 100)]
    (directory / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


@pytest.fixture(autouse=True)
def runs(work):
    write(work / "runs/p/1", rate=0.001, vocab_size=512, digest="a", loss=1.5, text="or", best=7)
    write(work / "runs/p/2", rate=0.01, vocab_size=1024, digest="b", loss=1.25, text="an")


def test_what_differs_is_shown_side_by_side(fst):
    done = fst("compare", "p/1", "runs/p/2")
    assert done.status == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["runs/p/1", "runs/p/2"] in rows
    assert ["trainer.learning_rate", "0.001", "0.01"] in rows
    assert ["tokenizer.vocab_size", "512", "1024"] in rows
    assert ["dataset", "a" * 12, "b" * 12] in rows
    assert ["valid_loss", "1.5", "1.25"] in rows
    assert ["perplexity.perplexity", "3", "2.5"] in rows
    assert "run.seed" not in done.out
    assert "trainer.use" not in done.out
    assert done.out.endswith(
        'samples from "To be"\n  runs/p/1\n  |  or100\n  runs/p/2\n  |  an100\n'
    )


def test_the_json_has_everything(fst):
    compared = json.loads(fst("compare", "p/1", "p/2", "--json").out)
    assert compared["runs"] == ["runs/p/1", "runs/p/2"]
    assert compared["settings"]["trainer.learning_rate"] == [0.001, 0.01]
    assert set(compared["settings"]) == {"trainer.learning_rate", "tokenizer.vocab_size", "dataset"}
    assert compared["figures"]["steps"] == [100, 100]
    assert compared["figures"]["best"] == [7, None]
    assert compared["samples"] == {"To be": [" or100", " an100"]}


def test_a_setting_that_one_run_has_not_is_absent(work, fst):
    path = work / "runs/p/2/pipeline.toml"
    path.write_text(path.read_text().replace('[[sampler]]\nuse = "greedy"\n', ""))
    settings = json.loads(fst("compare", "p/1", "p/2", "--json").out)["settings"]
    assert settings["sampler.1.use"] == ["greedy", "(absent)"]


def test_a_run_and_itself_do_not_differ(fst):
    assert "settings: the same" in fst("compare", "p", "p/2").out


def test_a_run_that_is_not_there_is_told(fst):
    done = fst("compare", "p/1", "p/3")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: p/3: no such run. `fst runs` lists those below runs.\n"


def test_what_a_run_wrote_does_not_move_the_cursor(work, fst):
    line = json.dumps({"step": 100, "prompt": "To be", "text": "\x1b[2J"})
    (work / "runs/p/1/samples.jsonl").write_text(line + "\n")
    assert "\x1b" not in fst("compare", "p/1", "p/2").out
