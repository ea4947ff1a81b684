"""The evaluator `perplexity`: its contract, and its figures against sums made id by id."""

from __future__ import annotations

import math

import pytest
import torch

from fst_core.errors import UserError
from fst_core.plugins import registry
from fst_core.testing import EvaluatorContract
from fst_core.testing.toys import ToyTokenizer, toy_dataset, toy_model


class TestPerplexity(EvaluatorContract):
    use = "perplexity"


@pytest.fixture
def model(tmp_path):
    return toy_model(tmp_path / "model", ToyTokenizer())


@pytest.fixture
def dataset(tmp_path, model):
    return toy_dataset(tmp_path / "dataset", model.tokenizer)


def perplexity(**settings):
    offer = registry().find("evaluator", "perplexity")
    return offer.build(offer.settings_class()(**settings))


def losses_id_by_id(module, samples):
    """The loss of each id that has one before it in its sample, in nats."""
    for index in range(len(samples)):
        ids = torch.from_numpy(samples[index].astype("int64"))
        with torch.no_grad():
            logits = module(input_ids=ids[None]).logits[0].double()
        for at in range(1, len(ids)):
            yield -torch.log_softmax(logits[at - 1], -1)[ids[at]].item()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_the_figures_are_those_of_each_id_whatever_the_batch(batch_size, model, dataset):
    losses = list(losses_id_by_id(model.module, dataset.valid))
    figures = perplexity(batch_size=batch_size, device="cpu").evaluate(model, dataset)
    mean = sum(losses) / len(losses)
    assert figures["loss"] == pytest.approx(mean, rel=1e-5)
    assert figures["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    bits = sum(losses) / math.log(2) / dataset.valid.text_bytes
    assert figures["bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_a_lossy_tokenizer_has_no_bits_per_byte(model, dataset, monkeypatch):
    monkeypatch.setattr(ToyTokenizer, "lossy", True)
    figures = perplexity(device="cpu").evaluate(model, dataset)
    assert figures["bits_per_byte"] is None
    assert figures["loss"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here_is_told_before_any_work():
    with pytest.raises(UserError, match=r'\[\[evaluate\]\] device = "cuda": torch finds none here'):
        perplexity(device="cuda")
