"""lm-eval's `local-completions` over the server scores texts as the model itself does."""

from __future__ import annotations

import warnings

import pytest
import torch
from fakes.tiny import make, tiny
from fst_engine.local import LocalEngine
from fst_engine.settings import LocalSettings
from fst_samplers.settings import StandardSettings
from fst_samplers.standard import StandardSampler
from serving import Server

PAIRS = [
    *((f"{n} roses are", f" red and violets {n} blue") for n in range(12)),
    ("", "roses are red"),
    ("", "violets"),
    ("red, blue", ""),
    ("Розы", " красны"),
    ("\U0001f339", "\U0001f339\U0001f339"),
    ("violets\n\n", "are\nblue"),
    ("roses", " are red and violets are blue and" * 2),
    ("a  b", "  c"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that FST made, on disk."""
    place = tmp_path_factory.mktemp("made")
    settings = (
        "tokenizer.use=bpe", "tokenizer.vocab_size=300", "model.n_embd=32", "model.n_layer=2",
        "trainer.learning_rate=0.01", "trainer.lightning.max_steps=10",
    )  # fmt: skip
    done = make(place, tiny(*settings), timeout=240)
    assert done.status == 0, done.err
    return place / "runs/tiny/1/model"


@pytest.fixture(scope="module")
def server(model):
    settings = StandardSettings()
    samplers = [(StandardSampler(settings), settings)]
    with Server(
        LocalEngine(LocalSettings(precision="fp32")).for_artefact(model, samplers)
    ) as running:
        yield running


@pytest.fixture
def direct(model):
    """The model as transformers computes it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def local_completions(server, model, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its import are its own
        from lm_eval.api.registry import get_model
    given = {"model": "tiny", "tokenizer": str(model), "max_length": 64, **arguments}
    return get_model("local-completions")(base_url=f"{server.url}/completions", **given)


def instances(kind, arguments):
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=number)
        for number, each in enumerate(arguments)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [{}, {"batch_size": 4}, {"num_concurrent": 4}], ids=str)
def test_loglikelihoods_are_those_of_a_direct_forward_pass(server, model, direct, batch):
    assert len(PAIRS) == 20
    evaluated = local_completions(server, model, **batch)
    told = evaluated.loglikelihood(instances("loglikelihood", PAIRS), disable_tqdm=True)
    for (context, continuation), (found, greedy) in zip(PAIRS, told, strict=True):
        if context:
            before, after = evaluated._encode_pair(context, continuation)
        else:
            before, after = [evaluated.prefix_token_id], evaluated.tok_encode(continuation)
        ids = torch.tensor([[*before, *after]])
        with torch.no_grad():
            logprobs = direct(ids).logits[0, :-1].log_softmax(-1)[len(before) - 1 :]
        expected = logprobs.gather(1, ids[0, len(before) :, None]).sum().item()
        assert found == pytest.approx(expected, abs=1e-4)
        assert greedy == (logprobs.argmax(-1) == ids[0, len(before) :]).all()
    assert len({round(found, 2) for found, _ in told}) > 10


@pytest.mark.slow
def test_texts_are_generated_as_the_model_continues_them(server, model, direct):
    evaluated = local_completions(server, model)
    asked = [(f"{n} roses are", {"until": ["\n", "violets"], "max_gen_toks": 12}) for n in range(5)]
    texts = evaluated.generate_until(instances("generate_until", asked), disable_tqdm=True)
    for (prompt, _), text in zip(asked, texts, strict=True):
        ids = evaluated.tok_encode(prompt)
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(direct(torch.tensor([ids])).logits[0, -1].argmax()))
        whole = evaluated.tokenizer.decode(ids[len(evaluated.tok_encode(prompt)) :])
        assert text == min(whole.split("\n")[0], whole.split("violets")[0], key=len)
