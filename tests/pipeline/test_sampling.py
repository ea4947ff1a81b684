"""Samples during training: their samplers may be changed while it goes on."""

from __future__ import annotations

import tomllib

import pytest

from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.run import Run
from fst_core.pipeline.sampling import Sampling, write_samplers
from fst_core.testing.toys import ToyModel, ToyTokenizer, toy_module

GREEDY = '[[sampler]]\nuse = "standard"\ntemperature = 0.0\n'


@pytest.fixture
def told():
    return []


@pytest.fixture
def sampling(tmp_path, told):
    pipeline = load_pipeline(
        None,
        [
            "engine.use=local",
            "engine.device=cpu",
            "engine.precision=fp32",
            "sampler.0.use=standard",
        ],
    )
    write_samplers(pipeline, tmp_path)
    run = Run("toy", tmp_path, 228)
    return Sampling(pipeline, (ToyModel(), toy_module(), ToyTokenizer()), run, told.append)


def test_the_file_has_all_settings_of_the_pipelines_samplers(sampling, tmp_path):
    (entry,) = tomllib.loads((tmp_path / "samplers.toml").read_text())["sampler"]
    assert entry["use"] == "samplers/standard"
    assert entry["temperature"] == 1.0
    assert entry["top_p"] == 1.0


def test_changed_settings_hold_for_the_next_samples(sampling, tmp_path, told):
    first = sampling(["the sea", "the sun"])
    assert sampling(["the sea", "the sun"]) == first  # each prompt has its own seed
    (tmp_path / "samplers.toml").write_text(GREEDY)
    greedy = sampling(["the sea"])
    assert greedy != first[:1]
    assert sampling(["the sea"] * 2) == greedy * 2
    assert told == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '[[sampler]]\nuse = "standard"\ntop_p = "much"\n',
            "[[sampler]] top_p = 'much': not a number.",
        ),
        ('[[sampler]]\nuse = "standart"\n', "Did you mean 'standard'?"),
        ('[[samplers]]\nuse = "standard"\n', "[samplers]: unknown table. Did you mean 'sampler'?"),
        ("[[sampler\n", "samplers.toml: "),
        ("\udcff", "samplers.toml: "),
    ],
)
def test_what_is_wrong_is_told_once_and_the_samplers_stay(content, said, sampling, tmp_path, told):
    (tmp_path / "samplers.toml").write_text(GREEDY)
    greedy = sampling(["the sea"])
    (tmp_path / "samplers.toml").write_bytes(content.encode(errors="surrogateescape"))
    assert sampling(["the sea"]) == greedy
    assert sampling(["the sea"]) == greedy
    (line,) = told
    assert said in line
    assert line.endswith("The samplers stay as they were.")


def test_without_the_file_the_samplers_stay(sampling, tmp_path, told):
    first = sampling(["the sea"])
    (tmp_path / "samplers.toml").unlink()
    assert sampling(["the sea"]) == first
    assert told == []
