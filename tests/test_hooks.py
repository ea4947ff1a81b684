"""Every hook, by a test of its name: what a plugin offers is found, what it watches it is told."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from fakes import with_fakes_fixture  # noqa: F401  # a fixture is used by its name

from fst_core import hookspecs
from fst_core.components import KINDS
from fst_core.pipeline.run import Run

HOOKS = sorted(name for name in dir(hookspecs) if name.startswith("fst_"))


@pytest.fixture
def run(tmp_path):
    return Run("poems", tmp_path, seed=228)


@pytest.fixture
def seen(with_fakes):
    with_fakes("toy")
    seen = sys.modules["fst_fake_toy"].SEEN
    seen.clear()
    return seen


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_of_its_name(hook):
    assert f"test_{hook}" in globals()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_hook(kind):
    assert f"fst_{kind}s" in HOOKS


def offered(registry, kind):
    return [o.address for o in registry.of_kind(kind) if o.plugin == "toy"]


def test_fst_readers(with_fakes):
    assert offered(with_fakes("toy"), "reader") == ["toy/plain", "toy/toy"]


def test_fst_tokenizers(with_fakes):
    assert offered(with_fakes("toy"), "tokenizer") == ["toy/plain", "toy/toy"]


def test_fst_models(with_fakes):
    assert offered(with_fakes("toy"), "model") == ["toy/plain", "toy/toy"]


def test_fst_trainers(with_fakes):
    assert offered(with_fakes("toy"), "trainer") == ["toy/plain", "toy/toy"]


def test_fst_samplers(with_fakes):
    assert offered(with_fakes("toy"), "sampler") == ["toy/plain", "toy/toy"]


def test_fst_evaluators(with_fakes):
    assert offered(with_fakes("toy"), "evaluator") == ["toy/plain", "toy/toy"]


def test_fst_engines(with_fakes):
    assert offered(with_fakes("toy"), "engine") == ["toy/plain", "toy/toy"]


def test_fst_executors(with_fakes):
    assert offered(with_fakes("toy"), "executor") == ["toy/plain", "toy/toy"]


def test_fst_frontends(with_fakes):
    assert offered(with_fakes("toy"), "frontend") == ["toy/plain", "toy/toy"]


def test_fst_stage_started(run, seen):
    run.tell("fst_stage_started", stage="train")
    assert seen == [("started", "poems", "train")]


def test_fst_stage_finished(run, seen):
    run.tell("fst_stage_finished", stage="train", artefact=Path("model"))
    assert seen == [("finished", "poems", Path("model"))]


def test_fst_stage_failed(run, seen):
    error = RuntimeError("no")
    run.tell("fst_stage_failed", stage="train", error=error)
    assert seen == [("failed", error)]


def test_fst_metrics(run, seen):
    run.metrics(7, {"loss": 1.5})
    assert seen == [("metrics", "poems", 7, {"loss": 1.5})]


def test_an_observer_that_fails_is_logged_and_the_others_are_told(run, with_fakes, caplog):
    with_fakes("angry", "toy")
    seen = sys.modules["fst_fake_toy"].SEEN
    seen.clear()
    with caplog.at_level(logging.ERROR):
        run.metrics(1, {"loss": 2.0})
        run.tell("fst_stage_started", stage="prepare")
    assert [entry[0] for entry in seen] == ["metrics", "started"]
    first, second = caplog.records
    assert first.getMessage() == (
        "plugin 'fst-fake-angry:angry' failed in fst_metrics; the run goes on"
    )
    assert "I do not like these figures" in caplog.text
    assert "fst_stage_started" in second.getMessage()


def test_the_calls_of_observers_are_traced(run, seen, monkeypatch, capsys):
    monkeypatch.setenv("FST_TRACE_HOOKS", "1")
    run.tell("fst_stage_started", stage="train")
    assert "fst-fake-toy:toy fst_stage_started(stage='train', run=Run(" in capsys.readouterr().err
