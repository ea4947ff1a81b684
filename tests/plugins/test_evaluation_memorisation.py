"""The evaluator `memorisation`: its contract, and the spans that it looks for, against a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from fst_evaluation import spans

from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import EvaluatorContract
from fst_core.testing.toys import ToyTokenizer, toy_dataset, toy_model


class TestMemorisation(EvaluatorContract):
    use = "memorisation"
    settings = {"number": 3, "length": 5, "max_new_tokens": 12}


def plainly_found(corpus, wanted):
    places = range(len(corpus))
    return {
        span for span in wanted if any(span == tuple(corpus[i : i + len(span)]) for i in places)
    }


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("block", [1, 7, 2**20])
@pytest.mark.parametrize("length", [2, 5, 20])
def test_spans_are_found_wherever_they_stand(dtype, block, length, monkeypatch):
    monkeypatch.setattr(spans, "_BLOCK", block)
    generator = np.random.default_rng(228)
    corpus = generator.integers(0, 3, 60).astype(dtype)
    there = {tuple(corpus[i : i + length].tolist()) for i in (0, 17, len(corpus) - length)}
    others = {tuple(generator.integers(0, 3, length).tolist()) for _ in range(50)}
    expected = plainly_found(corpus.tolist(), there | others)
    assert spans.found_in(corpus, there | others) == expected
    assert there <= expected


def test_equal_hashes_are_not_taken_for_equal_spans(monkeypatch):
    monkeypatch.setattr(
        spans, "_hashes", lambda ids, length: np.zeros(len(ids) - length + 1, np.uint64)
    )
    assert spans.found_in(np.array([1, 2, 3], np.uint16), {(1, 2), (2, 1)}) == {(1, 2)}


def test_a_corpus_shorter_than_a_span_holds_none():
    assert spans.found_in(np.array([1, 2], np.uint16), {(1, 2, 3)}) == set()
    assert spans.found_in(np.array([1, 2], np.uint16), set()) == set()


def evaluated(model, dataset, **settings):
    offer = registry().find("evaluator", "memorisation")
    return offer.build(validate(offer.settings_class(), settings)).evaluate(model, dataset)


@pytest.fixture
def model(tmp_path):
    return toy_model(tmp_path / "model", ToyTokenizer())


@pytest.fixture
def dataset(tmp_path, model):
    return toy_dataset(tmp_path / "dataset", model.tokenizer)


def test_a_new_model_repeats_no_long_span(model, dataset):
    long = evaluated(model, dataset, number=4, length=20, max_new_tokens=40)
    assert long["share"] == 0
    assert long["spans"] > 20


def test_a_model_that_repeats_its_corpus_is_told_from_one_that_does_not(
    model, dataset, monkeypatch
):
    """The engine writes half of its text from the corpus, half not."""
    corpus = dataset.train.corpus

    async def texts(self, model):
        strange = (ToyTokenizer.vocab_size - 1,) * 30
        return [tuple(corpus[3:33].tolist()), strange]

    implementation = registry().find("evaluator", "memorisation").implementation()
    monkeypatch.setattr(implementation, "_texts", texts)
    assert evaluated(model, dataset, length=11) == {"share": 0.5, "spans": 40.0}


def test_texts_shorter_than_a_span_have_no_share(model, dataset):
    figures = evaluated(model, dataset, number=2, length=50, max_new_tokens=10)
    assert figures == {"share": None, "spans": 0.0}


def test_prompts_are_taken_in_turn_and_are_no_part_of_the_texts(model, dataset):
    one = evaluated(model, dataset, number=2, length=2, max_new_tokens=8, prompts=["roses", "are"])
    assert one["spans"] <= 14
