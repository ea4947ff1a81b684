"""The engine `local`: what it generates, for whom, and what happens when something fails."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import random
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fst_engine.precision
import pytest
import torch
from fst_engine.cache import SlotCache
from fst_engine.forward import Forward
from fst_engine.kernels import load_kernels
from fst_engine.precision import choose_device, choose_dtype
from fst_engine.row import Fault, Row
from fst_engine.sampling import Sampling
from fst_engine.scheduler import Scheduler
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from fst_core import Message, Request, Sampler, Settings
from fst_core.artefacts import record
from fst_core.artefacts.model import save_model
from fst_core.errors import (
    ArtefactError,
    EngineBusy,
    FstError,
    UnsupportedParameter,
    UserError,
)
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import EngineContract
from fst_core.testing.toys import ToyTokenizer, toy_module

CONTEXT = 192
EMBEDDED = 272
"""The modules' vocabulary: larger than the tokenizer's 259, as padded embeddings are."""
CONTROL = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 258}


class TestLocal(EngineContract):
    use = "local"


pytestmark = pytest.mark.usefixtures("one_thread")


# toys


def gpt2(**config):
    torch.manual_seed(228)
    small = {"n_layer": 2, "n_embd": 32, "n_head": 4, "initializer_range": 0.3}
    config = {"vocab_size": EMBEDDED, "n_positions": CONTEXT, **small, **CONTROL, **config}
    return GPT2LMHeadModel(GPT2Config(**config)).eval()


def llama(config=LlamaConfig, module=LlamaForCausalLM, **fields):
    torch.manual_seed(228)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    sizes = {"vocab_size": EMBEDDED, "hidden_size": 32, "intermediate_size": 64}
    fields = {"max_position_embeddings": CONTEXT, "initializer_range": 0.3, **fields}
    return module(config(**sizes, **heads, **CONTROL, **fields)).eval()


class RunningMean(torch.nn.Module):
    """A module that knows nothing of caches: the mean of the embeddings so far."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(228)
        self.tokens = torch.nn.Embedding(259, 16)
        self.head = torch.nn.Linear(16, 259)

    def forward(
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        use_cache=False,
    ):
        assert past_key_values is None
        counts = torch.arange(1, input_ids.shape[1] + 1)[:, None]
        logits = self.head((self.tokens(input_ids).cumsum(1) / counts) * 8)
        return SimpleNamespace(logits=logits)


class SaySettings(Settings):
    say: str = ""
    """What is written, whatever the model says; "" leaves the choice to the model."""
    ids: tuple[int, ...] = ()
    """The same, as ids."""
    fail: str = ""
    """How to fail."""


class Say(Sampler):
    """Writes what a request wants to read, and fails when it wants that."""

    def adjust(self, logits, rows):
        for row, parameters in enumerate(rows.parameters):
            if parameters.fail == "raise":
                raise ZeroDivisionError("the sampler's own fault")
            if parameters.fail == "nan":
                logits[row] = torch.nan
            if parameters.fail == "nothing left":
                logits[row] = -torch.inf
            script = list(parameters.say.encode()) or parameters.ids
            if script:
                at = len(rows.history[row]) - rows.prompt_lengths[row]
                logits[row, torch.arange(logits.shape[1]) != script[at]] = -torch.inf
        if any(parameters.fail == "shape" for parameters in rows.parameters):
            return logits[:, :5]
        return logits

    def draw(self, logits, rows):
        ids = super().draw(logits, rows)
        for row, parameters in enumerate(rows.parameters):
            if parameters.fail == "control":
                ids[row] = ToyTokenizer.pad_id
        return ids


def say():
    return [(Say(), SaySettings())]


def standard(**parameters):
    offer = registry().find("sampler", "standard")
    settings = validate(offer.settings_class(), parameters)
    return [(offer.build(settings), settings)]


def greedy():
    return [(registry().find("sampler", "greedy").build(None), None)]


def local(**settings):
    offer = registry().find("engine", "local")
    return offer.build(validate(offer.settings_class(), settings))


def over(module, samplers=(), context=CONTEXT, tokenizer=None, cache=True, **settings):
    return local(**settings).for_module(
        module, tokenizer or ToyTokenizer(), samplers, context, supports_cache=cache
    )


def together(engine, requests):
    """Generate all at once; an error stands in the place of its result."""

    async def all_of_them():
        return await asyncio.gather(*map(engine.generate, requests), return_exceptions=True)

    return asyncio.run(all_of_them())


def alone(engine, requests):
    return [asyncio.run(engine.generate(request)) for request in requests]


def random_prompt(rng, longest=CONTEXT - 1):
    return tuple(rng.randrange(256) for _ in range(rng.randint(1, longest)))


def random_requests(count, seed=228, longest=100):
    rng = random.Random(seed)
    return [
        Request(
            random_prompt(rng, longest),
            max_new_tokens=rng.randint(1, 20),
            seed=rng.randrange(2**40),
            parameters={
                "temperature": rng.choice([0, 0.7, 1, 1.5]),
                "top_k": rng.choice([0, 0, 5, 40]),
                "top_p": rng.choice([1, 1, 0.8]),
                "repetition_penalty": rng.choice([1, 1, 1.3]),
                "frequency_penalty": rng.choice([0, 0, 0.5]),
            },
        )
        for _ in range(count)
    ]


# what is generated


@pytest.mark.parametrize("module", [gpt2(), llama()], ids=["gpt2", "llama"])
def test_greedy_ids_are_those_that_transformers_generates(module):
    rng = random.Random(1)
    prompts = [random_prompt(rng) for _ in range(12)]
    unwanted = [256, *range(258, EMBEDDED)]
    expected = [
        module.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_length=CONTEXT,
            suppress_tokens=unwanted,
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    assert len({len(prompt) // 64 for prompt in prompts}) == 3  # read in one to three pieces
    engine = over(module, greedy(), prefill_chunk=64)
    found = together(engine, [Request(prompt) for prompt in prompts])
    assert [list(generation.ids) for generation in found] == expected


@pytest.mark.parametrize("module", [gpt2(), llama()], ids=["gpt2", "llama"])
def test_a_module_without_its_cache_generates_the_same(module):
    requests = random_requests(16)
    with_cache, without = (over(module, standard(), cache=cache) for cache in (True, False))
    assert without.describe()["cache"] is False
    assert together(without, requests) == together(with_cache, requests)


@pytest.mark.parametrize(
    ("module", "count"),
    [(gpt2(), 200), (llama(), 200), pytest.param(gpt2(), 1000, marks=pytest.mark.slow)],
    ids=["gpt2", "llama", "gpt2 at length"],
)
def test_mixed_requests_generate_what_they_do_alone(module, count):
    requests = random_requests(count, seed=count)
    expected = alone(over(module, standard(), prefill_chunk=32), requests)
    engine = over(module, standard(), max_running=24, max_waiting=count)
    assert together(engine, requests) == expected


def test_rows_that_were_sent_back_for_lack_of_memory_go_on_as_they_would_have():
    rng, module = random.Random(5), toy_module(1024)
    requests = [
        replace(request, prompt=(*range(200), rng.randrange(256)), max_new_tokens=80)
        for request in random_requests(10)
    ]
    expected = alone(over(module, standard(), 1024), requests)
    row = 2 * 2 * 256 * 16 * 4 / 1e9  # layers, keys and values, columns, width, bytes
    engine = over(module, standard(), 1024, cache_gb=4.5 * row)
    sent_back = []
    scheduler = engine._served.worker._scheduler
    step = scheduler.step

    def watched():
        outcomes = step()
        sent_back.extend(row for row in scheduler.waiting if row.begun)
        return outcomes

    scheduler.step = watched
    assert together(engine, requests) == expected
    assert sent_back


@pytest.mark.parametrize("module", [gpt2(), llama()], ids=["gpt2", "llama"])
def test_log_probabilities_are_those_of_a_plain_forward_pass(module):
    rng = random.Random(2)
    requests = [
        Request(random_prompt(rng, 120), max_new_tokens=30, seed=seed, logprobs=seed % 4)
        for seed in range(20)
    ]
    samplers = standard(temperature=1.5, top_k=40, repetition_penalty=1.5)
    for request, found in zip(requests, together(over(module, samplers), requests), strict=True):
        ids = torch.tensor([[*request.prompt, *found.ids]])
        with torch.no_grad():
            logits = module(ids).logits[0, len(request.prompt) - 1 : -1, : ToyTokenizer.vocab_size]
        expected = logits.log_softmax(-1)
        assert len(found.logprobs) == len(found.ids)
        for each, i, row in zip(found.logprobs, found.ids, expected, strict=True):
            assert each.id == i
            assert each.logprob == pytest.approx(row[i].item(), abs=1e-4)
            best = row.topk(request.logprobs).values.tolist()
            assert [p for _, p in each.top] == pytest.approx(best, abs=1e-4)
            assert [row[j].item() for j, _ in each.top] == pytest.approx(best, abs=1e-4)


def test_log_probabilities_are_given_to_those_who_ask_only():
    requests = [Request("a", max_new_tokens=3), Request("a", max_new_tokens=3, logprobs=0)]
    without, plain = together(over(gpt2()), requests)
    assert without.logprobs is None
    assert [each.top for each in plain.logprobs] == [(), (), ()]


def test_without_samplers_ids_are_drawn_as_likely_as_the_model_says():
    module = RunningMean()
    requests = [Request("ab", max_new_tokens=1, seed=seed) for seed in range(2000)]
    engine = over(module, cache=False, max_waiting=2000)
    found = [generation.ids[0] for generation in together(engine, requests)]
    logits = module(torch.tensor([ToyTokenizer().encode_prompt("ab")])).logits[0, -1]
    logits[[256, 258]] = -torch.inf
    expected = logits.softmax(-1)
    drawn = torch.bincount(torch.tensor(found), minlength=259) / len(found)
    assert (drawn - expected).abs().sum() < (drawn.sort().values - expected).abs().sum() / 2
    assert (drawn - expected).abs().max() < 0.03


def test_no_control_id_but_the_end_is_generated():
    requests = [Request(max_new_tokens=100, seed=seed) for seed in range(16)]
    found = together(over(gpt2(), standard(temperature=100)), requests)
    ids = [i for generation in found for i in generation.ids]
    assert len(set(ids)) > 240
    assert set(ids) <= set(range(256)) | {ToyTokenizer.end_id}
    assert any(generation.finish_reason == "stop" for generation in found)


def test_the_end_of_a_document_is_the_last_id_and_has_no_text():
    engine = over(gpt2(), say())
    script = {"ids": (97, 98, 257, 99)}
    (found,) = together(engine, [Request(max_new_tokens=4, parameters=script, logprobs=1)])
    assert (found.ids, found.text, found.finish_reason) == ((97, 98, 257), "ab", "stop")
    assert len(found.logprobs) == 3


def test_the_end_of_the_context_ends_a_generation():
    for length in (1, CONTEXT - 2, CONTEXT - 1):
        (found,) = together(over(gpt2(), say()), [Request((97,) * length, parameters={})])
        assert len(found.ids) == CONTEXT - length or found.finish_reason == "stop"
    script = {"say": "x" * CONTEXT}
    (found,) = together(over(gpt2(), say()), [Request((97,), parameters=script)])
    assert (found.text, found.finish_reason) == ("x" * (CONTEXT - 1), "length")


@pytest.mark.parametrize(
    ("written", "stop", "text"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("three", "two"), "one "),
        ("one two three", ("o",), ""),
        ("one two three", ("twofold", "w t"), "one two three"),
        ("aaab", ("aab",), "a"),
        ("Hi 👩‍🚀!", ("🚀",), "Hi 👩‍"),
    ],
)
def test_stop_strings_end_the_text_wherever_they_are(written, stop, text):
    engine, length = over(gpt2(), say()), len(written.encode())
    request = Request("p", max_new_tokens=length, stop=stop, parameters={"say": written})

    async def chunks():
        return [chunk async for chunk in engine.stream(request)]

    found = asyncio.run(chunks())
    assert "".join(chunk.text for chunk in found) == text
    assert found[-1].finish_reason == ("length" if text == written else "stop")
    met = min((written.index(s) + len(s) for s in stop if s in written), default=len(written))
    assert len(found) == len(written[:met].encode())
    assert engine.describe()["running"] == 0


def test_every_chunk_is_whole_characters_and_together_they_are_the_text():
    text = "Ещё: 👩‍🚀 é 漢字."
    request = Request(max_new_tokens=len(text.encode()), parameters={"say": text})
    engine = over(gpt2(), say())

    async def chunks():
        return [chunk async for chunk in engine.stream(request)]

    found = asyncio.run(chunks())
    assert "".join(chunk.text for chunk in found) == text
    assert all("\ufffd" not in chunk.text for chunk in found)
    assert [i for chunk in found for i in chunk.ids] == list(text.encode())


# prompts and parameters


def test_an_empty_prompt_without_bos_goes_on_from_the_end_of_a_document():
    class WithoutBos(ToyTokenizer):
        bos_id = None

    engine = over(gpt2(), greedy(), tokenizer=WithoutBos())
    by_end, empty, none = together(
        engine, [Request(prompt, max_new_tokens=9) for prompt in ((257,), "", ())]
    )
    assert empty == none == by_end


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            Request("a" * CONTEXT),
            f"the prompt has {CONTEXT + 1} ids, and the model takes {CONTEXT}",
        ),
        (Request((97,) * CONTEXT), f"the prompt has {CONTEXT} ids"),
        (Request((97, 259)), "the id 259 is not in the vocabulary of 259"),
        (Request((-1,)), "the id -1 is not"),
        (Request("a", max_new_tokens=0), "max_new_tokens = 0"),
        (Request("a", max_new_tokens=2.5), "max_new_tokens = 2.5: not an integer"),
        (Request("a", seed=None), "seed = None: not an integer"),
        (Request("a", logprobs="2"), "logprobs = '2': not an integer"),
        (Request("a", logprobs=-1), "logprobs = -1"),
        (Request("a", min_new_tokens=-1), "min_new_tokens = -1"),
        (Request("a", min_new_tokens=3, max_new_tokens=2), "min_new_tokens = 3: should be from 0"),
        (Request("a", min_new_tokens=10**9), "min_new_tokens = 1000000000: should be from 0"),
        (
            Request("a", min_new_tokens=CONTEXT - 1, max_new_tokens=CONTEXT),
            f"min_new_tokens = {CONTEXT - 1}: should be from 0 to {CONTEXT - 2}, the room",
        ),
        (Request("a", stop_ids=(259,)), "stop_ids: the id 259 is not in the vocabulary"),
        (Request("a", prompt_logprobs=101), "prompt_logprobs = 101: should be from 0 to 100"),
        (Request("a", prompt_logprobs=1, max_new_tokens=-1), "max_new_tokens = -1"),
        (Request((97,) * (CONTEXT + 1), prompt_logprobs=1, max_new_tokens=0), "the prompt has"),
        (Request("a", logprobs=260), "logprobs = 260"),
        (
            Request("a", parameters={"temperature": -1}),
            "^temperature = -1: .*greater than or equal",
        ),
        (Request("a", parameters={"top_k": "many"}), "^top_k = 'many': not an integer.$"),
        (Request("a", parameters={"top_p": float("nan")}), "^top_p = nan: "),
    ],
)
def test_what_is_wrong_with_a_request_is_told(request_, message):
    (error,) = together(over(gpt2(), standard()), [request_])
    assert isinstance(error, UserError)
    with pytest.raises(UserError, match=message):
        raise error


@pytest.mark.parametrize(
    ("request_", "parameter", "message"),
    [
        (Request((97,), meta="label"), "meta", "used as they are"),
        (Request("a", parameters={"temprature": 1}), "temprature", "Did you mean 'temperature'?"),
        (Request("a", parameters={"x": 1}), "x", "no sampler has this parameter.$"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_its_name(request_, parameter, message):
    (error,) = together(over(gpt2(), standard()), [request_])
    assert isinstance(error, UnsupportedParameter)
    assert error.parameter == parameter
    with pytest.raises(UnsupportedParameter, match=message):
        raise error


def test_a_request_overrides_the_pipelines_samplers_and_no_other_request():
    engine = over(gpt2(), standard(temperature=0))
    same, other, seeded = together(
        engine,
        [
            Request("a", max_new_tokens=20, seed=1),
            Request("a", max_new_tokens=20, seed=2),
            Request("a", max_new_tokens=20, seed=1, parameters={"temperature": 2.0}),
        ],
    )
    assert same == other != seeded


def test_samplers_are_run_in_their_order_each_with_its_own_parameters():
    engine = over(gpt2(), [*say(), *standard(temperature=0)])
    script = {"say": "abc", "top_k": 1}
    said, free = together(
        engine, [Request(max_new_tokens=3, parameters=script), Request(max_new_tokens=3)]
    )
    assert said.text == "abc"
    assert free == together(over(gpt2(), greedy()), [Request(max_new_tokens=3)])[0]


def test_two_samplers_with_one_field_are_refused():
    with pytest.raises(UserError, match=r"Say and Say both have a field 'say'"):
        over(gpt2(), [*say(), *say()])


# more than text


def test_ids_that_end_the_text_are_the_last_and_have_no_text():
    engine = over(gpt2(), say())
    request = Request(max_new_tokens=4, stop_ids=(99, 98), parameters={"say": "abcd"})
    (found,) = together(engine, [request])
    assert (found.ids, found.text, found.finish_reason) == ((97, 98), "a", "stop")


def test_nothing_ends_the_text_before_the_fewest_ids_are_generated():
    engine = over(toy_module(CONTEXT, end_at=2))
    for fewest in (0, 1, 5, 9):
        request = Request("a", max_new_tokens=30, min_new_tokens=fewest, stop_ids=(99,))
        (found,) = together(engine, [request])
        assert len(found.ids) == max(fewest, 2) + 1 if fewest > 2 else len(found.ids) <= 3
        assert found.ids[-1] in {99, 257}
        assert not {99, 257} & set(found.ids[:fewest])


def test_a_sampler_that_ends_the_text_too_early_fails():
    request = Request("a", min_new_tokens=3, stop_ids=(98,), parameters={"say": "ab"})
    (error,) = together(over(gpt2(), say()), [request])
    with pytest.raises(FstError, match="the sampler Say failed"):
        raise error


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("new", [0, 3])
def test_the_prompts_log_probabilities_are_those_of_a_plain_forward_pass(cache, new):
    rng, module = random.Random(6), gpt2()
    prompts = [random_prompt(rng, 150) for _ in range(5)] + [tuple(range(CONTEXT - new))]
    requests = [Request(p, max_new_tokens=new, prompt_logprobs=2, seed=9) for p in prompts]
    engine = over(module, standard(temperature=0.5), prefill_chunk=32, cache=cache)
    for prompt, found in zip(prompts, together(engine, requests), strict=True):
        with torch.no_grad():
            expected = module(torch.tensor([prompt])).logits[0, :, :259].log_softmax(-1)
        first, *others = found.prompt_logprobs
        assert first is None
        assert [each.id for each in others] == list(prompt[1:])
        for each, row in zip(others, expected[:-1], strict=True):
            assert each.logprob == pytest.approx(row[each.id].item(), abs=1e-4)
            assert [p for _, p in each.top] == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)
        assert len(found.ids) == new
        assert found.prompt_tokens == len(prompt)
        assert found.finish_reason == "length"


def test_the_first_chunk_alone_says_how_long_the_prompt_was():
    engine = over(gpt2())

    async def chunks():
        return [chunk async for chunk in engine.stream(Request("abc", max_new_tokens=3))]

    assert [chunk.prompt_tokens for chunk in asyncio.run(chunks())] == [4, None, None]


def test_a_label_stands_before_the_prompt_as_before_a_document():
    engine = over(gpt2(), greedy())
    ids = (256, *b"poem\n---\nRoses")
    labelled, same = alone(engine, [Request("Roses", 20, meta="poem"), Request(ids, 20)])
    assert labelled == same
    said = [Request((Message("user", "Hi"),), 20, meta="poem")]
    said += [Request((Message("system", "poem"), Message("user", "Hi")), 20)]
    assert len({generation.ids for generation in alone(engine, said)}) == 1


def test_a_frontend_can_count_and_show_ids():
    engine = over(gpt2())

    async def both():
        ids = await engine.encode("Ещё")
        assert ids == tuple(ToyTokenizer().encode_prompt("Ещё"))
        assert await engine.encode("a" * 20_000) == (256, *[97] * 20_000)
        assert await engine.decode(ids) == "Ещё"
        assert await engine.decode(ids[:2]) == "\ufffd"
        for wrong in ((259,), (-1,), ("a",)):
            with pytest.raises(UserError, match="ids: the id"):
                await engine.decode(wrong)

    asyncio.run(both())


# conversations

TURNS = (Message("system", "Be kind."), Message("user", " Hi "))


def test_a_conversation_is_a_text_where_the_model_learned_none():
    engine, script = over(gpt2(), say()), {"say": "  Hello you\nUser: me"}
    ids = asyncio.run(engine.encode(TURNS))
    assert ToyTokenizer().decode(ids) == "System: Be kind.\nUser: Hi\nAssistant:"
    assert ids[0] == ToyTokenizer.bos_id
    request = Request(TURNS, max_new_tokens=20, parameters=script)
    (found,) = together(engine, [request])
    assert (found.text, found.finish_reason) == ("Hello you", "stop")
    (found,) = together(engine, [replace(request, parameters={"say": "\nUser: " + "x" * 20})])
    assert (found.text, found.finish_reason) == ("", "stop")
    (found,) = together(engine, [replace(request, stop=("you",))])
    assert found.text == "Hello "


@pytest.mark.parametrize(
    "prompt", [(Message("narrator", "x"),), (TURNS[0], 5), (Message("user", 5),)], ids=str
)
def test_a_prompt_that_is_no_conversation_is_refused(prompt):
    (error,) = together(over(gpt2()), [Request(prompt)])
    assert isinstance(error, UserError)
    assert str(error).startswith("prompt: ")


# what runs beside what


def test_first_tokens_come_in_the_order_of_the_requests():
    rng = random.Random(3)
    requests = [Request(random_prompt(rng), max_new_tokens=5, seed=seed) for seed in range(30)]
    engine, order = over(gpt2(), max_running=3, prefill_chunk=CONTEXT), []

    async def note(number):
        async with aclosing(engine.stream(requests[number])) as chunks:
            await anext(chunks)
            order.append(number)
            async for _ in chunks:
                pass

    async def all_of_them():
        await asyncio.gather(*map(note, range(len(requests))))

    asyncio.run(all_of_them())
    assert order == list(range(len(requests)))


def rows(scheduler, *prompts, new=50):
    made = [
        Row(list(prompt), len(prompt), len(prompt) + new, seed=number, parameters=(None,))
        for number, prompt in enumerate(prompts)
    ]
    for row in made:
        scheduler.submit(row)
    return made


def scheduler(module=None, *, max_running=8, cache_bytes=1e9, **forward):
    return Scheduler(
        Forward(module or gpt2(), ToyTokenizer.vocab_size, **forward),
        Sampling(greedy(), never=[256, 258]),
        max_running=max_running,
        prefill_chunk=32,
        cache_bytes=cache_bytes,
    )


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize("module", [gpt2, llama])
def test_short_prompts_are_read_together_and_none_sees_another(module, served):
    module, calls = module(), []
    forward = {"in_training": not served, "pack": served}
    module.register_forward_pre_hook(
        lambda _, __, kwargs: calls.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    rng = random.Random(3)
    prompts = [random_prompt(rng, 10) for _ in range(6)]
    expected = []
    for prompt in prompts:
        steps = scheduler(module, **forward)
        (row,) = rows(steps, prompt, new=5)
        while not steps.idle:
            steps.step()
        expected.append(row.ids)
    calls.clear()
    steps = scheduler(module, **forward)
    made = rows(steps, *prompts, new=5)
    first = steps.step()
    lengths = [len(prompt) for prompt in prompts]
    assert calls == [(1, sum(lengths)) if served else (len(prompts), max(lengths))]
    assert [token.row for token in first] == made
    while not steps.idle:
        steps.step()
    assert [row.ids for row in made] == expected


def test_of_prompts_that_are_read_together_a_failing_one_fails_alone():
    module = gpt2()

    def refuse(_, __, kwargs):
        if 13 in kwargs["input_ids"].flatten().tolist():
            raise ArithmeticError("thirteen")

    module.register_forward_pre_hook(refuse, with_kwargs=True)
    steps = scheduler(module)
    made = rows(steps, [1, 2, 3], [4, 13, 5], [6, 7])
    outcomes = steps.step()
    assert [isinstance(outcome, Fault) for outcome in outcomes] == [False, True, False]
    assert steps.running == [made[0], made[2]]


def test_running_rows_get_a_token_in_every_step_while_a_long_prompt_is_read():
    module, calls = gpt2(), []
    module.register_forward_pre_hook(
        lambda _, __, kwargs: calls.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    steps = scheduler(module)
    (short,) = rows(steps, [97])
    steps.step()
    (long,) = rows(steps, range(150))
    calls.clear()
    for expected in [10] * 15:
        outcomes = steps.step()
        assert outcomes[0].row is short
        assert [tuple(shape) for shape in calls] == [(1, 1), (1, expected)]
        calls.clear()
    assert [outcome.row for outcome in outcomes] == [short, long]
    assert [outcome.row for outcome in steps.step()] == [short, long]


def test_a_short_prompt_does_not_wait_for_a_long_one_that_is_read_slowly():
    steps = scheduler(toy_module(1024))
    (written,) = rows(steps, [97])
    steps.step()
    long, short = rows(steps, range(250), range(12))
    steps.step()
    assert short.begun
    assert not long.begun
    while not long.begun:
        assert {outcome.row for outcome in steps.step()} >= {written, short}


def test_a_cancelled_row_takes_no_part_in_the_next_step_and_its_memory_is_freed():
    steps = scheduler(max_running=3)
    first, second, third, waiting, entering = rows(
        steps, [1], [2] * 40, [3], [4], range(100), new=20
    )
    while len(steps.running) < 3:
        steps.step()
    assert len(steps.cache.lengths) == 3
    steps.cancel(second)
    steps.cancel(waiting)
    assert len(steps.cache.lengths) == 2
    taken = {outcome.row for outcome in steps.step()}
    assert taken == {first, third}
    steps.cancel(entering)  # in the middle of its prompt
    for row in (first, third):
        steps.cancel(row)
    assert steps.idle
    assert steps.cache.lengths == []
    assert steps.cache.bytes_for([1]) == 0


def test_the_youngest_rows_are_sent_back_and_come_before_those_that_never_ran():
    steps = scheduler(toy_module(1024), max_running=4)
    *running, waiting = rows(steps, *([number] * 250 for number in range(5)), new=500)
    while len(steps.running) < 4:
        steps.step()
    steps._cache_bytes = steps.cache.bytes_for([256] * 4)
    while len(steps.running) == 4:
        steps.step()
    assert max(len(row.ids) for row in running) > 256
    assert [row in steps.running for row in running] == [True, True, False, False]
    assert list(steps.waiting) == [*running[2:], waiting]


def test_closing_an_iterator_frees_its_place():
    engine = over(gpt2(), max_running=1)

    async def close():
        async with aclosing(engine.stream(Request("a"))) as chunks:
            await anext(chunks)
            assert engine.describe()["running"] == 1
        return await asyncio.wait_for(engine.generate(Request("b", max_new_tokens=2)), 5)

    assert len(asyncio.run(close()).ids) == 2
    assert engine.describe()["running"] == engine.describe()["waiting"] == 0


def test_a_task_that_is_cancelled_while_it_waits_is_forgotten():
    engine = over(gpt2(), max_running=1)

    async def cancel():
        running = asyncio.create_task(engine.generate(Request("a", max_new_tokens=40)))
        waiting = [asyncio.create_task(engine.generate(Request("b"))) for _ in range(3)]
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await running

    asyncio.run(cancel())
    assert engine.describe()["waiting"] == 0


def test_more_requests_than_may_wait_are_refused():
    engine = over(gpt2(), say(), max_running=2, max_waiting=3)
    requests = [Request("a", max_new_tokens=150, parameters={"say": "x" * 150})] * 7
    found = together(engine, requests)
    assert [isinstance(each, EngineBusy) for each in found] == [False] * 5 + [True] * 2
    assert not any(isinstance(each, Exception) for each in together(engine, requests[:5]))


def test_one_engine_serves_one_event_loop_after_another_and_several_at_once():
    engine, request = over(gpt2()), Request("a", max_new_tokens=30)
    expected = asyncio.run(engine.generate(request))
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(together(engine, [request] * 3)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 12


def test_a_loop_that_was_closed_leaves_the_others_alone():
    engine = over(gpt2())

    async def abandon():
        chunks = engine.stream(Request("a"))
        await anext(chunks)
        return chunks  # still open when the loop is closed

    loop = asyncio.new_event_loop()
    chunks = loop.run_until_complete(abandon())
    loop.close()
    assert len(asyncio.run(engine.generate(Request("b", max_new_tokens=40))).ids) == 40
    assert engine.describe()["running"] == 0
    del chunks


# faults


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("raise", "the sampler Say failed: ZeroDivisionError: the sampler's own fault"),
        ("nan", "the sampler Say failed: .*not a number"),
        ("nothing left", "the sampler Say failed: .*no id is left"),
        ("shape", r"the sampler Say failed: .*\(1, 5\)"),
        ("control", "the sampler Say failed: .*the id 258"),
    ],
)
def test_a_request_with_which_a_sampler_fails_fails_alone(fail, message):
    sound = [Request(f"{n}", max_new_tokens=10, seed=n) for n in range(6)]
    faulty = Request("f", parameters={"fail": fail})
    engine = over(gpt2(), say())
    expected = together(engine, sound)
    *found, error = together(engine, [*sound, faulty])
    assert found == expected
    with pytest.raises(FstError, match=message):
        raise error


def test_logits_that_are_not_numbers_fail_their_own_request_whoever_gets_its_slot():
    module = gpt2(tie_word_embeddings=False)
    with torch.no_grad():
        module.transformer.wte.weight[7] = torch.nan
    sound = [Request(f"{n}", max_new_tokens=9 + n, seed=n) for n in range(6)]
    engine = over(module, say(), max_running=4)
    expected = alone(engine, sound)
    at_once = Request((7,))
    later = Request("f", parameters={"ids": (1, 2, 3, 7, 1, 1)})
    found = together(engine, [*sound[:3], at_once, later, *sound[3:], later])
    errors = [found.pop(index) for index in (8, 4, 3)]
    assert found == expected
    for error in errors:
        with pytest.raises(FstError, match="not finite numbers"):
            raise error


@pytest.mark.parametrize("cache", [True, False])
def test_a_request_with_which_the_module_fails_fails_alone(cache):
    module = gpt2()
    sound = [Request(f"{n}", max_new_tokens=20, seed=n) for n in range(6)]
    engine = over(module, say(), cache=cache)
    expected = together(engine, sound)
    poison = min(set(range(48)) - {i for generation in expected for i in generation.ids})

    def fail(module, args, kwargs):
        if (kwargs["input_ids"] == poison).any():
            raise ZeroDivisionError("poison")

    module.register_forward_pre_hook(fail, with_kwargs=True)
    later = Request("f", parameters={"ids": (99, 99, 99, poison, 99)})
    *found, error, another = together(engine, [*sound, later, Request((poison,))])
    assert found == expected
    for each in (error, another):
        with pytest.raises(FstError, match="the model failed: ZeroDivisionError: poison"):
            raise each


def test_a_tokenizer_that_fails_fails_its_own_request():
    class NoNine(ToyTokenizer):
        def decode(self, ids):
            if 9 in ids:
                raise ZeroDivisionError("nine")
            return super().decode(ids)

    engine = over(gpt2(), say(), tokenizer=NoNine())
    scripts = [{"ids": (1, 9, 1)}, {"ids": (1, 1, 1)}]
    error, found = together(engine, [Request(max_new_tokens=3, parameters=s) for s in scripts])
    assert found.ids == (1, 1, 1)
    with pytest.raises(FstError, match="the tokenizer failed: ZeroDivisionError: nine"):
        raise error


def test_a_thread_that_dies_tells_everybody_who_waits_and_comes():
    engine = over(gpt2(), max_running=2)
    engine._served.worker._scheduler.step = lambda: 1 / 0
    found = together(engine, [Request("a")] * 5)
    assert len(found) == 5
    for error in (*found, *together(engine, [Request("a")])):
        with pytest.raises(FstError, match="the engine stopped: ZeroDivisionError"):
            raise error


def test_an_engine_whose_thread_died_or_is_closed_is_not_alive():
    engine = over(gpt2())
    assert engine.describe()["alive"]
    engine._served.worker._scheduler.step = lambda: 1 / 0
    together(engine, [Request("a")])
    assert not engine.describe()["alive"]
    closed = over(gpt2())
    asyncio.run(closed.close())
    assert not closed.describe()["alive"]


def test_an_engine_that_hangs_is_not_alive_until_it_goes_on():
    module, go_on = gpt2(), threading.Event()
    module.register_forward_pre_hook(lambda *_: go_on.wait(5) and None)
    engine = over(module, stall_seconds=0.05)

    async def hang():
        running = asyncio.create_task(engine.generate(Request("a", max_new_tokens=3)))
        await asyncio.sleep(0.01)
        assert engine.describe()["alive"]
        await asyncio.sleep(0.1)
        assert not engine.describe()["alive"]
        go_on.set()
        await running
        assert engine.describe()["alive"]
        await asyncio.sleep(0.1)  # nothing to do is no standstill
        assert engine.describe()["alive"]

    asyncio.run(hang())


def test_who_has_waited_too_long_is_refused_and_who_runs_is_not():
    engine = over(gpt2(), say(), max_running=1, waiting_seconds=0.03)
    module = engine._served.forward.module
    module.register_forward_pre_hook(lambda *_: time.sleep(0.005) and None)
    request = Request("a", max_new_tokens=30, parameters={"say": "x" * 30})
    first, *others = together(engine, [request] * 3)
    assert first.text == "x" * 30
    for error in others:
        assert isinstance(error, EngineBusy)
    assert engine.describe()["waiting"] == 0


def test_a_closed_engine_has_no_thread():
    engine = over(gpt2())

    async def close():
        running = asyncio.create_task(engine.generate(Request("a")))
        await asyncio.sleep(0.01)
        thread = engine._served.worker._thread
        assert thread.is_alive()
        await engine.close()
        assert not thread.is_alive()
        with pytest.raises(FstError, match="the engine is closed"):
            await running

    asyncio.run(close())


def test_an_engine_that_nobody_closed_ends_with_its_last_reference():
    engine = over(gpt2())
    asyncio.run(engine.generate(Request("a", max_new_tokens=2)))
    thread = engine._served.worker._thread
    assert thread.is_alive()
    del engine
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_process_may_exit_while_its_engine_computes():
    script = """
        import asyncio, sys
        sys.path.insert(0, sys.argv[1])
        from test_engine import Request, gpt2, over

        async def main():
            engine = over(gpt2(n_layer=12, n_embd=512, n_positions=1024), context=1024)
            chunks = engine.stream(Request("a", min_new_tokens=1000))
            await anext(chunks)
            return engine, chunks

        kept = asyncio.new_event_loop().run_until_complete(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_engine_without_a_model_says_so():
    with pytest.raises(FstError, match="no model yet"):
        local().describe()
    (error,) = together(local(), [Request("a")])
    assert isinstance(error, FstError)


# modules


def test_a_module_in_training_is_evaluated_and_goes_on_training():
    module = gpt2(resid_pdrop=0.5).train()
    module.transformer.h[0].eval()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    engine, request = over(module, greedy()), Request("a", max_new_tokens=20)
    before = asyncio.run(engine.generate(request))
    assert asyncio.run(engine.generate(request)) == before  # no dropout
    assert module.training
    assert module.transformer.h[1].attn.attn_dropout.training
    assert not module.transformer.h[0].training
    ids = torch.randint(0, 256, (4, 16))
    module(ids, labels=ids).loss.backward()
    optimizer.step()
    assert asyncio.run(engine.generate(request)) != before


def test_a_module_may_move_and_change_its_precision_between_requests():
    module = gpt2()
    engine, request = over(module, greedy()), Request("a", max_new_tokens=5)
    assert engine.describe()["dtype"] == "float32"
    asyncio.run(engine.generate(request))
    module.to(torch.bfloat16)
    assert engine.describe()["dtype"] == "bfloat16"
    assert len(together(engine, [request] * 3)[0].ids) == 5


def test_a_module_whose_attention_slides_is_served_within_its_window():
    module = llama(MistralConfig, MistralForCausalLM, sliding_window=32)
    engine = over(module, say())
    assert engine.describe()["context_length"] == 32
    assert over(module, cache=False).describe()["context_length"] == CONTEXT


def test_a_module_that_has_states_instead_of_keys_is_served_without_a_cache():
    module = gpt2()
    module.config.layer_types = ["full_attention", "linear_attention"]
    assert over(module).describe()["cache"] is False


def test_it_describes_what_it_serves():
    module = gpt2()
    assert over(module, max_running=5).describe() == {
        "name": "local",
        "alive": True,
        "context_length": CONTEXT,
        "device": "cpu",
        "dtype": "float32",
        "parameters": module.num_parameters(),
        "cache": True,
        "chat": "default",
        "sampling": {},
        "max_running": 5,
        "running": 0,
        "waiting": 0,
    }


def test_it_describes_the_parameters_that_a_request_may_override():
    said = over(gpt2(), [*say(), *standard(temperature=0.7)]).describe()["sampling"]
    assert {"say", "fail", "temperature", "top_k", "ignored_words"} <= set(said)
    assert said["temperature"]["default"] == 0.7
    assert said["temperature"]["maximum"] == 100
    assert said["say"]["description"].startswith("What is written")
    json.dumps(said)


def test_a_saved_model_is_served_in_the_precision_of_the_settings(tmp_path):
    model, tokenizer = registry().find("model", "gpt2"), registry().find("tokenizer", "bytes")
    settings = validate(model.settings_class(), {"n_layer": 1, "n_embd": 32, "n_positions": 64})
    torch.manual_seed(228)
    module = model.build(settings).build(tokenizer.build(None)).eval()
    (tmp_path / "tokenizer").mkdir()
    tokenizer.build(None).save(tmp_path / "tokenizer")
    directory = tmp_path / "model"
    directory.mkdir()
    components = {"model": record(model, settings), "tokenizer": record(tokenizer, None)}
    save_model(
        directory, model.build(settings), module, tmp_path / "tokenizer", components=components
    )
    request = Request("To be", max_new_tokens=20)
    served = local(device="cpu", precision="fp32").for_artefact(directory, greedy())
    assert served.describe()["context_length"] == 64
    assert together(served, [request]) == together(over(module, greedy(), 64), [request])
    half = local(device="cpu", precision="bf16").for_artefact(directory, greedy())
    assert half.describe()["dtype"] == "bfloat16"
    assert len(together(half, [request])[0].ids) == 20
    with pytest.raises(ArtefactError):
        local().for_artefact(tmp_path, greedy())


# the cache


def test_the_cache_holds_what_each_row_put_into_it():
    rng, cache, expected = random.Random(4), SlotCache(), []
    torch.manual_seed(4)
    heads, width, layers = 3, 5, 2

    def check(slots, counts):
        new = max(counts)
        cache.reserve(slots, [new] * len(slots))
        positions, visible = cache.place(slots, counts, torch.device("cpu"))
        for layer in range(layers):
            keys, values = torch.randn(2, len(slots), heads, new, width)
            for row, (slot, count) in enumerate(zip(slots, counts, strict=True)):
                fresh = torch.stack([keys[row, :, :count], values[row, :, :count]])
                expected[slot][layer] = torch.cat([expected[slot][layer], fresh], 2)
            found = torch.stack(cache.update(keys, values, layer))
            for row, (slot, count) in enumerate(zip(slots, counts, strict=True)):
                kept = expected[slot][layer]
                last = kept.shape[2]
                assert torch.equal(found[:, row, :, :last], kept)
                seen = visible[row].sum(-1).tolist()
                assert seen == list(range(last - count + 1, last - count + 1 + new))
                assert positions[row].tolist()[:count] == list(range(last - count, last))
                assert positions[row].max() == max(last - 1, last - count)
            assert found.isfinite().all()
        cache.commit(slots, counts)
        assert cache.lengths == [kept[0].shape[2] for kept in expected]

    for _ in range(300):
        if len(expected) < 9 and (not expected or rng.random() < 0.3):
            if expected and rng.random() < 0.5:
                row = rng.randrange(len(expected))
                length = rng.randint(0, cache.lengths[row])
                source, place = (cache, row) if rng.random() < 0.5 else (cache.copy(row, length), 0)
                cache.add(source, place, length)
                expected.append([kept[:, :, :length] for kept in expected[row]])
            else:
                cache.add()
                expected.append([torch.empty(2, heads, 0, width)] * layers)
        elif rng.random() < 0.2:
            row = rng.randrange(len(expected))
            cache.remove(row)
            expected[row] = expected[-1]
            expected.pop()
        elif rng.random() < 0.1:
            row = rng.randrange(len(expected))
            length = rng.randint(0, cache.lengths[row])
            cache.shorten(row, length)
            expected[row] = [kept[:, :, :length] for kept in expected[row]]
        if expected:
            check(list(range(len(expected))), [1] * len(expected))
            slots = rng.sample(range(len(expected)), rng.randint(1, len(expected)))
            check(slots, [rng.randint(0, 40) + (n == 0) for n in range(len(slots))])


def test_a_forward_pass_that_failed_leaves_no_trace_in_the_cache():
    module = gpt2()
    forward = Forward(module, 259)
    cache = forward.new_cache()
    cache.add()
    forward([[1, 2, 3]], cache)
    hook = module.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forward([[4]], cache)
    hook.remove()
    assert cache.lengths == [3]
    expected = module(input_ids=torch.tensor([[1, 2, 3, 5]])).logits[:, -1, :259]
    assert torch.allclose(forward([[5]], cache), expected, atol=1e-5)


def test_memory_does_not_grow_with_the_number_of_requests():
    steps = scheduler()
    for number in range(40):
        made = rows(steps, *([number] * (1 + 7 * n % 50) for n in range(5)), new=6)
        steps.cancel(made[number % 5])
        while not steps.idle:
            assert not any(isinstance(outcome, Fault) for outcome in steps.step())
        assert not steps.waiting
        assert not steps.cache.lengths
    gc.collect()
    held = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.dim() == 4]
    assert [tensor for tensor in held if tensor.numel() > 1] == []


# precision


@pytest.mark.parametrize(
    ("cpuinfo", "dtype"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n", torch.bfloat16),
        ("processor : 0\nFeatures\t: fp asimd bf16\n", torch.bfloat16),
        ("processor : 0\nflags\t\t: fpu avx2 avx512f\n", torch.float32),
        ("", torch.float32),
        (None, torch.float32),
    ],
)
def test_bf16_is_chosen_where_the_processor_multiplies_it(tmp_path, monkeypatch, cpuinfo, dtype):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr(fst_engine.precision, "_CPUINFO", path)
    assert choose_dtype("auto", torch.device("cpu")) == dtype
    assert choose_dtype("fp32", torch.device("cpu")) == torch.float32
    assert choose_dtype("bf16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("compiler", ["c++", "none"])
@pytest.mark.parametrize("module", [gpt2, llama])
def test_in_bf16_attention_is_computed_in_float32(module, compiler, monkeypatch, request):
    if compiler == "none":
        monkeypatch.setenv("CXX", "none")
        request.addfinalizer(load_kernels.cache_clear)
        load_kernels.cache_clear()
    rng = random.Random(7)
    ids = [[5, *random_prompt(rng, 100)] for _ in range(4)]
    narrow = module(**({"n_embd": 128} if module is gpt2 else {})).to(torch.bfloat16)
    exact = copy.deepcopy(narrow).float()
    expected = torch.cat([narrow(torch.tensor([row])).logits[:, -1, :259] for row in ids])
    exact = torch.cat([exact(torch.tensor([row])).logits[:, -1, :259] for row in ids])
    forward = Forward(narrow, 259, in_training=False)
    held = torch.bfloat16 if compiler == "c++" else torch.float32
    cache = forward.new_cache()
    for _ in ids:
        cache.add()
    forward([row[:-1] for row in ids], cache)
    found = forward([row[-1:] for row in ids], cache)
    assert found.dtype == torch.bfloat16
    assert {tensor.dtype for pair in cache._layers.values() for tensor in pair} == {held}
    assert (found - exact).abs().max() < 1.5 * (expected - exact).abs().max()


def test_a_device_that_is_not_there_is_told():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(UserError, match=r"device = 'cuda:99': .*There is: .*cpu"):
        choose_device("cuda:99")
