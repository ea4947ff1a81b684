"""Gates: a figure that does not meet its bound keeps `fst run` from serving."""

from __future__ import annotations

import json
import math
import shutil

import pytest
from fakes import fst_fixture, spawn, tiny  # noqa: F401  # a fixture is used by its name

from fst_core import Settings
from fst_core.pipeline.gates import unmet

PIPELINE = f"""{tiny.PIPELINE}
[[evaluate]]
use = "perplexity"
max_perplexity = 20
[[evaluate]]
use = "memorisation"
number = 2
length = 4
max_new_tokens = 8
max_share = 0.5
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `fst run` made once, with what it printed."""
    place = tmp_path_factory.mktemp("made")
    done = tiny.make(place, PIPELINE, timeout=180)
    return place, done


@pytest.fixture
def again(made, work):
    """A copy of it, in the working directory."""
    shutil.copytree(made[0], work, dirs_exist_ok=True)


def test_a_model_that_does_not_meet_a_gate_is_not_served(made):
    place, done = made
    assert done.status == 1
    last = done.err.splitlines()[-1]
    figures = json.loads((place / "runs/tiny/1/evaluation.json").read_text())["figures"]
    value = figures["perplexity"]["perplexity"]
    assert value > 20
    assert last == (
        f"error: evaluate: perplexity is {value:.5g}, more than max_perplexity = 20: "
        "runs/tiny/1/model is not served"
    )
    assert figures["memorisation"].keys() == {"share", "spans"}
    assert "It writes" not in done.out
    assert "Traceback" not in done.err


def test_the_run_card_and_the_list_of_runs_say_so(made, again, fst):
    card = (made[0] / "runs/tiny/1/report.md").read_text("utf-8")
    assert "**A gate was not met:** perplexity is " in card
    assert "more than max_perplexity = 20" in fst("runs").out


@pytest.mark.usefixtures("again")
def test_the_gate_stands_when_everything_is_up_to_date(fst):
    for command in (("run",), ("evaluate", "pipeline.toml")):
        done = fst(*command)
        assert done.status == 1
        assert "evaluate: up to date" in done.err
        assert "more than max_perplexity = 20" in done.err


@pytest.mark.usefixtures("again")
def test_a_met_gate_lets_the_model_be_served(fst):
    done = fst("run", "--until", "evaluate", "-s", "evaluate.0.max_perplexity=1000")
    assert done.status == 0
    assert "It writes" in done.out
    assert "train: up to date" in done.err


@pytest.mark.usefixtures("again")
def test_a_frontend_is_not_begun():
    done = spawn("run", "-s", "serve.0.use=lines", fakes=["frontend"], timeout=180)
    assert done.status == 1
    assert "port " not in done.err
    assert "serve: " not in done.err
    assert "more than max_perplexity = 20" in done.err


class Bounds(Settings):
    """Settings of an evaluator."""

    max_loss: float | None = None
    min_share: float | None = None
    max_length: int = 7
    max: dict[str, float] = {}
    min: dict[str, float] = {}


@pytest.mark.parametrize(
    ("settings", "figures", "lines"),
    [
        ({}, {"loss": 5.0}, []),
        ({"max_loss": 4.0}, {"loss": 4.0}, []),
        ({"max_loss": 4.0}, {"loss": 5.0}, ["loss of size is 5, more than max_loss = 4"]),
        ({"min_share": 0.5}, {"share": 0.25}, ["share of size is 0.25, less than min_share = 0.5"]),
        ({"min_share": 0.5}, {"share": 0.75}, []),
        ({"max_loss": 4.0}, {"loss": None}, ["loss of size is not known, and max_loss = 4"]),
        ({"max_length": 1}, {"loss": 5.0}, []),
        ({"max": {"a/b": 1}}, {"a/b": 2.0}, ["a/b of size is 2, more than max.a/b = 1"]),
        ({"min": {"size": 1}}, {"size": 0.5}, ["size is 0.5, less than min.size = 1"]),
        ({"min": {"other": 1}}, {"loss": 2.0}, ["other of size is not known, and min.other = 1"]),
        (
            {"max_loss": 1.0, "min_share": 1.0},
            {"loss": 2.0, "share": 0.0},
            [
                "loss of size is 2, more than max_loss = 1",
                "share of size is 0, less than min_share = 1",
            ],
        ),
    ],
)
def test_bounds_are_settings_named_after_figures(settings, figures, lines):
    assert unmet(Bounds(**settings), figures, "size") == lines


def test_no_bound_is_met_by_what_is_no_number():
    assert unmet(Bounds(max_loss=4.0), {"loss": math.nan}, "size") != []
    assert unmet(None, {"loss": math.nan}, "size") == []
