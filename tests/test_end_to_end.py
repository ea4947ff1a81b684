"""The whole way once on real text: Shakespeare's Hamlet, from scenes to a model that others open."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
import torch

from fst_core import Request, open_engine
from fst_core.artefacts import load_tokenizer, read_manifest
from fst_core.pipeline.pipeline import load_pipeline
from fst_core.pipeline.stages import run_stages

DEMO = Path(__file__).parent.parent / "examples/shakespeare/pipeline.toml"
SMALLER = [
    'documents.files="plays/tragedies/hamlet.md"',
    "tokenizer.vocab_size=600",
    "model.n_embd=32",
    "model.n_layer=2",
    "trainer.learning_rate=5e-3",
    "trainer.num_warmup_steps=5",
    "trainer.lightning.max_steps=120",
    "trainer.lightning.val_check_interval=120",
    "sampler.0.temperature=0",
]
PROMPTS = ["HAMLET", "", "To be, or not", "  spaces\n\n", "ё «naïve» 漢"]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("demo"))
        pipeline = load_pipeline(DEMO, SMALLER)
        yield run_stages(pipeline, "evaluate", lambda _: None)


def test_the_model_has_learned_something_of_the_text(outcome):
    figures = outcome.figures["perplexity"]
    assert figures["loss"] < math.log(600) - 1
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert 1 < figures["bits_per_byte"] < 4  # single letters by their frequency: 4.5


@pytest.fixture(scope="module")
def opened(outcome):
    """The model as `transformers` opens it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(outcome.model)
    return model.eval(), AutoTokenizer.from_pretrained(outcome.model)


def test_transformers_gives_a_prompt_the_same_ids(outcome, opened):
    tokenizer = load_tokenizer(outcome.model, read_manifest(outcome.model))
    for prompt in PROMPTS:
        assert opened[1](prompt)["input_ids"] == tokenizer.encode_prompt(prompt)


def test_transformers_writes_the_same_greedy_text_and_stops_at_the_end_id(outcome, opened):
    model, tokenizer = opened
    assert tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id) == "[DOC_END]"
    engine = open_engine(outcome.model, ["engine.precision=fp32"])

    async def generate():
        requests = [Request(prompt=prompt, max_new_tokens=40) for prompt in PROMPTS[:3]]
        generations = await asyncio.gather(*(engine.generate(request) for request in requests))
        await engine.close()
        return generations

    for prompt, ours in zip(PROMPTS, asyncio.run(generate()), strict=False):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        theirs = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :].tolist()
        assert list(ours.ids) == [i for i in theirs if i != model.generation_config.eos_token_id]
        assert ours.text == tokenizer.decode(theirs, skip_special_tokens=True)
