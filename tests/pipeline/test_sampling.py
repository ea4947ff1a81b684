"""Samples during training: their samplers may be changed while it goes on."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace

import pytest
import torch

from fst_core.chat import ChatTemplate
from fst_core.documents import Message
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.run import Run
from fst_core.pipeline.sampling import SampledRun, Sampling, write_samplers
from fst_core.testing.toys import ToyModel, ToyTokenizer, toy_module

GREEDY = '[[sampler]]\nuse = "standard"\ntemperature = 0.0\n'


@pytest.fixture
def told():
    return []


@pytest.fixture
def build(tmp_path, told):
    """Build a Sampling over a module, a toy's by default."""
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

    def build(module=None, chat=None):
        trained = (ToyModel(), module or toy_module(), ToyTokenizer())
        return Sampling(pipeline, trained, run, told.append, chat)

    return build


@pytest.fixture
def sampling(build):
    return build()


class Ending(torch.nn.Module):
    """Would end each text at once, and keeps in mind what it has read."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.read = []

    def forward(self, input_ids, **_):
        self.read.append(input_ids[0].tolist())
        logits = torch.zeros(*input_ids.shape, ToyTokenizer().vocab_size) + self.weight
        logits[..., ToyTokenizer().end_id] = 30.0
        return SimpleNamespace(logits=logits, past_key_values=None)


def test_what_is_drawn_depends_on_the_step_and_on_nothing_before_it(build):
    def drawn(sampling, step):
        run = SampledRun(
            "toy", sampling._file.parent, 228, Run("toy", sampling._file.parent, 228), sampling
        )
        run.metrics(step, {})
        return sampling(["the sea", "the sea"])

    one = build()
    texts = [drawn(one, step) for step in (10, 20, 30)]
    assert len({text for pair in texts for text in pair}) == 6
    assert drawn(build(), 20) == texts[1]  # as after a run that was cut off


def test_a_sample_has_a_token_at_least(build):
    assert all(build(Ending())(["the sea", ""]))


def test_a_prompt_is_a_users_turn_where_conversations_are_learned(build, tmp_path):
    ToyTokenizer().save(tmp_path)
    chat = ChatTemplate.to_learn(tmp_path, ToyTokenizer())
    module = Ending()
    build(module, chat)(["the sea"])
    expected = chat.encode((Message("user", "the sea"),), ToyTokenizer())
    assert module.read[0][: len(expected)] == expected


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
