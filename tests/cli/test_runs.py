"""`fst runs`: what it lists of runs that are finished, running, failed, interrupted or damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from fakes import environment_of, fst_fixture  # noqa: F401  # a fixture is used by its name

from fst_core.artefacts.publish import locked
from fst_core.pipeline.runs import PastRun, find_run, past_runs, record_metrics
from fst_core.report.card import write_report


def begun(directory, fields=(), tables=""):
    """Write a run as it is when it begins."""
    directory.mkdir(parents=True)
    described = {"schema": 1, "fingerprint": "f", "fields": {"stage": "train", **dict(fields)}}
    (directory / "run.json").write_text(json.dumps(described))
    (directory / "pipeline.toml").write_text(tables)
    return directory


def finished(directory, fields=(), tables="", *, parameters=1234, bits=2.5, **figures):
    """Write a run as it is at its end."""
    begun(directory, fields, tables)
    (directory / "model").mkdir()
    manifest = {"figures": figures, "counts": {"parameters": parameters}}
    (directory / "model/fst.json").write_text(json.dumps(manifest))
    evaluation = {"figures": {"perplexity": {"bits_per_byte": bits}}, "unmet": ["it is too large"]}
    (directory / "evaluation.json").write_text(json.dumps(evaluation))
    return directory


def test_runs_are_listed_by_name_and_number(work, fst):
    finished(work / "runs/poems/2", steps=400, valid_loss=1.5)
    finished(work / "runs/poems/10", steps=1200, valid_loss=1.25, bits=2.125)
    begun(work / "runs/letters/1")
    (work / "runs/poems/notes").mkdir()
    done = fst("runs")
    assert done.status == 0
    header, *lines = [line.split() for line in done.out.splitlines()]
    assert header[:4] == ["RUN", "STATE", "STEPS", "VALID"]
    assert [line[:2] for line in lines] == [
        ["letters/1", "interrupted"], ["poems/2", "finished"], ["poems/10", "finished"],
    ]  # fmt: skip
    assert lines[2][2:6] == ["1,200", "1.2500", "2.1250", "1,234"]
    assert done.out.count("it is too large") == 2
    assert "letters" not in fst("runs", "poems").out


def test_the_json_has_what_is_known_and_null_for_what_is_not(work, fst):
    finished(work / "elsewhere/poems/1", steps=400, valid_loss=1.5)
    begun(work / "elsewhere/poems/2")
    first, second = json.loads(fst("runs", "--root", "elsewhere", "--json").out)
    begun_at = first.pop("begun")
    assert first == {
        "name": "poems", "number": 1, "directory": "elsewhere/poems/1", "state": "finished",
        "steps": 400, "valid_loss": 1.5, "bits_per_byte": 2.5, "parameters": 1234,
        "unmet": ["it is too large"], "error": None,
    }  # fmt: skip
    assert begun_at > 1e9
    assert second["state"] == "interrupted"
    assert [second[name] for name in ("steps", "valid_loss", "bits_per_byte", "parameters")] == [
        None
    ] * 4


def state_of(fst):
    return [
        (run["state"], run["steps"], run["error"]) for run in json.loads(fst("runs", "--json").out)
    ]


def test_running_failed_and_interrupted_are_told_apart(work, fst):
    for number in (1, 2):
        record_metrics(begun(work / f"runs/poems/{number}"), 7, {"loss": 3.0})
    first, second = work / "runs/poems/1", work / "runs/poems/2"
    assert state_of(fst) == [("interrupted", 7, None)] * 2
    with locked(work / "runs/poems"):
        later = time.time() + 5
        os.utime(second / "metrics.jsonl", (later, later))
        assert state_of(fst) == [("interrupted", 7, None), ("running", 7, None)]
        os.utime(first / "run.json", (later + 5, later + 5))
        assert [state for state, *_ in state_of(fst)] == ["running", "interrupted"]
    assert state_of(fst) == [("interrupted", 7, None)] * 2
    with locked(work / "runs/poems"):  # looking has not taken it away
        pass
    write_report(second, "step 8: the loss is nan.\nLower it")
    assert state_of(fst)[1] == ("failed", 7, "step 8: the loss is nan.\nLower it")
    line = fst("runs").out.splitlines()[2]
    assert line.split()[:2] == ["poems/2", "failed"]
    assert line.endswith("  step 8: the loss is nan. Lower it")
    record = {"step": 8, "time": time.time() + 60, "metrics": {"loss": 2.0}}
    with (second / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    assert state_of(fst)[1] == ("interrupted", 8, None)  # it has gone on since


@pytest.mark.parametrize("content", ["", "{", "[]", '{"time": "soon", "error": 1}'])
def test_a_damaged_error_is_none(work, fst, content):
    (begun(work / "runs/poems/1") / "error.json").write_text(content)
    assert state_of(fst) == [("interrupted", None, None)]


def test_no_runs_are_no_error(work, fst):
    done = fst("runs", "poems")
    assert (done.status, done.out) == (0, "")
    assert done.err == "No runs of poems below runs.\n"
    assert json.loads(fst("runs", "--json").out) == []


def test_an_unfinished_run_is_told_by_what_its_trainer_reported(tmp_path):
    run = begun(tmp_path / "poems/1")
    record_metrics(run, 1, {"loss": 5.0, "gradient_norm": float("nan")})
    record_metrics(run, 2, {"loss": 4.0})
    record_metrics(run, 2, {"valid_loss": 3.5})
    record_metrics(run, 3, {"loss": 3.75, "valid_loss": 3.75})
    past = PastRun(run)
    assert past.metrics[1] == {"loss": 5.0}
    assert past.metrics[2] == {"loss": 4.0, "valid_loss": 3.5}
    summary = past.summary()
    assert (summary["steps"], summary["valid_loss"]) == (3, 3.5)
    assert past.times == sorted(past.times)
    assert len(past.times) == 4


def test_the_loss_and_the_bits_per_byte_are_those_of_one_validation(tmp_path):
    run = begun(tmp_path / "poems/1")
    for step, loss, bits in ((10, 3.0, 2.5), (20, 2.0, 1.5), (30, 4.0, 3.5)):
        record_metrics(run, step, {"valid_loss": loss, "bits_per_byte": bits})
    summary = PastRun(run).summary()
    assert (summary["valid_loss"], summary["bits_per_byte"]) == (2.0, 1.5)
    record_metrics(run, 40, {"valid_loss": 1.0})
    assert PastRun(run).summary()["bits_per_byte"] is None


def test_the_figures_of_a_finished_run_are_of_one_source(tmp_path):
    run = finished(tmp_path / "poems/1", bits=2.5, valid_loss=1.5, bits_per_byte=1.25)
    record_metrics(run, 10, {"valid_loss": 9.0, "bits_per_byte": 8.0})
    assert PastRun(run).held_out == (1.5, 1.25)  # the evaluator has no loss
    figures = {"perplexity": {"loss": 1.75, "bits_per_byte": 2.5}}
    (run / "evaluation.json").write_text(json.dumps({"figures": figures}))
    assert PastRun(run).held_out == (1.75, 2.5)


def test_what_is_reported_of_an_interval_is_averaged_over_steps(tmp_path):
    run = finished(tmp_path / "poems/1", steps=10)
    for step, share in ((8, 0.0), (10, 0.5)):
        record_metrics(run, step, {"padding_share": share, "learning_rate": 0.1, "loss": 1.0})
    figures = PastRun(run).figures
    assert figures["padding_share"] == pytest.approx(0.1)
    assert "learning_rate" not in figures


def test_steps_that_a_resumed_run_reports_again_count_once_and_a_cut_line_not_at_all(tmp_path):
    run = begun(tmp_path / "poems/1")
    for step, loss in ((1, 5.0), (2, 4.5), (2, 4.25), (3, 4.0)):
        record_metrics(run, step, {"loss": loss})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "metr')
    losses = {step: metrics["loss"] for step, metrics in PastRun(run).metrics.items()}
    assert losses == {1: 5.0, 2: 4.25, 3: 4.0}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"figures": 3, "counts": {}}'])
def test_a_damaged_file_is_as_a_missing_one(tmp_path, content):
    run = finished(tmp_path / "poems/1", steps=4)
    for name in ("model/fst.json", "evaluation.json", "run.json", "pipeline.toml"):
        (run / name).write_text(content)
    [past] = past_runs(tmp_path)
    assert past.summary()["steps"] is None
    assert past.bits_per_byte is None
    assert past.settings == {}


@pytest.mark.parametrize("text", ["runs/poems/2", "runs/poems/2/model", "poems/2", "poems"])
def test_a_run_is_found_by_its_directory_or_its_name(work, text):
    for number in (1, 2):
        finished(work / "runs/poems" / str(number))
    assert find_run(text, work.__class__("runs")).number == 2


LIGHT = """
import sys
from fst_core.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print(sorted({m.partition(".")[0] for m in sys.modules} & {
    "torch", "transformers", "numpy", "tokenizers", "pydantic", "pytorch_lightning"}))
"""


@pytest.mark.parametrize(
    "arguments", [["runs"], ["runs", "--json"], ["compare", "poems/1", "poems/2"]]
)
def test_nothing_but_json_is_read(work, arguments):
    for number in (1, 2):
        finished(work / "runs/poems" / str(number), steps=number)
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments],
        env=environment_of(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
