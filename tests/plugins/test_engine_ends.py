"""How an answer ends: by the ids of generation_config.json, and by what closes a turn of the template."""

from __future__ import annotations

import asyncio
import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from fst_core import Message, Request
from fst_core.artefacts import record
from fst_core.artefacts.model import save_model
from fst_core.pipeline.target import open_engine
from fst_core.plugins import registry
from fst_core.settings import validate

CONTROL = ["<|text_end|>", "<|turn|>", "<|turn_end|>", "<|call|>", "<|pad|>"]
TEXT_END, TURN, TURN_END, CALL, PAD = range(5)
CHAT = """\
{%- for message in messages %}{{ '<|turn|>' + message.role + '\\n' + message.content + CLOSE }}
{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"""
HI = (Message("user", "Hi"),)


def write(directory, ends, close="'<|turn_end|>'"):
    """Write a tiny chat model as `transformers` does."""
    directory.mkdir()
    pipeline = Tokenizer(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=261, special_tokens=CONTROL, show_progress=False, initial_alphabet=alphabet
    )
    pipeline.train_from_iterator([], trainer)
    pipeline.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": CONTROL[TEXT_END],
        "pad_token": CONTROL[PAD],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(CHAT.replace("CLOSE", close))
    torch.manual_seed(228)
    small = {"vocab_size": 261, "n_positions": 128, "n_embd": 16, "n_layer": 1, "n_head": 2}
    module = GPT2LMHeadModel(GPT2Config(**small, eos_token_id=0, bos_token_id=None))
    module.save_pretrained(directory)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    return directory


def exported(directory, to):
    """Save a model as FST does after fine-tuning it."""
    offers = [registry().find(kind, "transformers/pretrained") for kind in ("model", "tokenizer")]
    settings = [validate(each.settings_class(), {"path": str(directory)}) for each in offers]
    model, tokenizer = (each.build(given) for each, given in zip(offers, settings, strict=True))
    (to / "tokenizer").mkdir(parents=True)
    tokenizer.save(to / "tokenizer")
    (to / "model").mkdir()
    components = {
        kind: record(offer, given)
        for kind, offer, given in zip(("model", "tokenizer"), offers, settings, strict=True)
    }
    components["samplers"] = [
        record(
            registry().find("sampler", "standard"),
            validate(registry().find("sampler", "standard").settings_class(), {}),
        )
    ]
    save_model(
        to / "model", model, model.build(tokenizer).eval(), to / "tokenizer", components=components
    )
    return to / "model"


def written(engine, prompt, *script, **fields):
    """Let a model write the likeliest id, which is the wanted one."""
    bias = dict.fromkeys(script, 100)
    parameters = {"temperature": 0, "logit_bias": bias}
    request = Request(prompt, max_new_tokens=4, parameters=parameters, **fields)
    found = asyncio.run(engine.generate(request))
    return found.ids, found.finish_reason


@pytest.fixture(params=["as it came", "saved by FST"])
def opened(request, tmp_path):
    def open_one(*made):
        directory = write(tmp_path / "chat", *made)
        if request.param == "saved by FST":
            directory = exported(directory, tmp_path / "saved")
        return open_engine(directory, ["engine.device=cpu"])

    return open_one


def test_every_end_that_the_model_names_ends_an_answer_and_no_other_text(opened):
    engine = opened([TEXT_END, CALL, PAD, 10**6], "''")
    assert engine.describe()["chat"] == "trained"
    for end in (TEXT_END, CALL, PAD):
        assert written(engine, HI, end) == ((end,), "stop")
    assert written(engine, HI, TURN_END) == ((TURN_END,) * 4, "length")
    for plain in ("Hi", (70, 71)):
        assert written(engine, plain, TEXT_END) == ((TEXT_END,), "stop")
        assert written(engine, plain, CALL) == ((CALL,) * 4, "length")
        ids, reason = written(engine, plain, PAD)
        assert PAD not in ids
        assert reason == "length"
        assert written(engine, plain, PAD, stop_ids=(PAD,)) == ((PAD,), "stop")


def test_what_closes_a_turn_of_the_template_ends_an_answer(opened):
    engine = opened(TEXT_END)
    assert written(engine, HI, TURN_END) == ((TURN_END,), "stop")
    assert written(engine, HI, TEXT_END) == ((TEXT_END,), "stop")
    assert written(engine, HI, CALL) == ((CALL,) * 4, "length")
    ids, reason = written(engine, HI, TURN_END, min_new_tokens=3)
    assert (len(ids), TURN_END in ids[:3], reason) == (4, False, "stop")
    assert written(engine, "Hi", TURN_END) == ((TURN_END,) * 4, "length")


def test_a_template_that_takes_no_answers_ends_none(opened):
    engine = opened(TEXT_END, "raise_exception('no') if message.role == 'assistant' else ''")
    assert written(engine, HI, TURN_END) == ((TURN_END,) * 4, "length")
    assert written(engine, HI, TEXT_END) == ((TEXT_END,), "stop")
