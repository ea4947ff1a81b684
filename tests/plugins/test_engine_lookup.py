"""Looking up how a text goes on: a lone request comes in fewer steps, and is the same to the id."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest
import torch
from fst_engine.forward import Forward
from fst_engine.lookup import Lookup
from fst_engine.prefixes import Prefixes
from fst_engine.row import Fault, Row
from fst_engine.sampling import Sampling
from fst_engine.scheduler import Scheduler
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fst_core import Request, Sampler, Settings
from fst_core.artefacts import record
from fst_core.artefacts.model import save_model
from fst_core.plugins import registry
from fst_core.settings import validate

VOCABULARY = 259
CONTEXT = 192
SIZES = {"vocab_size": VOCABULARY, "initializer_range": 0.3}
FORWARD = [{}, {"in_training": False, "pack": True}]
SONG = list(b"la la li la la li la la lo ")


pytestmark = pytest.mark.usefixtures("one_thread")


# toys


def gpt2(**fields):
    torch.manual_seed(228)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": CONTEXT, **SIZES}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, **fields})).eval()


def llama():
    torch.manual_seed(228)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": CONTEXT}
    return LlamaForCausalLM(LlamaConfig(**heads, **sizes, **SIZES)).eval()


class SaySettings(Settings):
    ids: tuple[int, ...] = ()
    """What is written, whatever the model says; none leave the choice to the model."""


class Say(Sampler):
    """Writes what a request wants to read, as far as it may be, and else the likeliest id."""

    def adjust(self, logits, rows):
        for row, parameters in enumerate(rows.parameters):
            if parameters.ids:
                at = len(rows.history[row]) - rows.prompt_lengths[row]
                logits[row, parameters.ids[at]] += 1e4
        return logits

    def draw(self, logits, rows):
        return logits.argmax(-1)


def standard(**parameters):
    offer = registry().find("sampler", "standard")
    settings = validate(offer.settings_class(), parameters)
    return offer.build(settings), settings


class Watched:
    """A scheduler, and how many ids of how many rows its module was called with."""

    def __init__(self, module=None, lookup=8, sampler=None, prefixes=None, **forward):
        self.module = module or gpt2()
        self.calls = []
        hook = lambda _, __, named: self.calls.append(tuple(named["input_ids"].shape))  # noqa: E731  # read at once
        self.hook = self.module.register_forward_pre_hook(hook, with_kwargs=True)
        self.scheduler = Scheduler(
            Forward(self.module, VOCABULARY, **forward),
            Sampling([sampler or (Say(), None)], never=[256, 258]),
            max_running=8,
            prefill_chunk=64,
            cache_bytes=1e9,
            prefixes=prefixes,
            lookup=lookup,
        )

    def submit(self, prompt, new=8, parameters=None, script=(), **fields):
        own = parameters or SaySettings(ids=tuple(script))
        length = len(prompt)
        row = Row(list(prompt), length, length + new, parameters=(own,), **{"seed": 0, **fields})
        self.scheduler.submit(row)
        return row

    def step(self):
        """Do a step, and check that the cache holds of each row what it should."""
        outcomes = self.scheduler.step()
        if self.scheduler._forward.supports_cache:
            held = self.scheduler.cache.lengths
            for row, length in zip(self.scheduler.running, held, strict=True):
                assert length == len(row.ids) - 1 or not row.begun  # or it is still being read
        return outcomes

    def run(self, *prompt, **fields):
        """Generate to the end, alone, and return what came, and how often the module was called."""
        self.calls.clear()
        if prompt:
            self.submit(*prompt, **fields)
        outcomes = []
        while not self.scheduler.idle:
            outcomes += self.step()
        return outcomes, len(self.calls)


def told(outcomes):
    """What a row's outcomes say, but for log probabilities, which are nearly equal."""
    return [
        str(each.error) if isinstance(each, Fault) else (each.id, each.finish_reason)
        for each in outcomes
    ]


# guesses


def test_what_followed_the_last_ids_is_guessed_and_the_latest_counts():
    lookup = Lookup(8)
    assert lookup.guess([1, 2, 3, 4, 9, 1, 2, 3, 5, 6, 0, 1, 2, 3], 8) == [5, 6]
    assert lookup.guess([1, 2, 3, 4, 9, 1, 2, 3, 5, 6, 0, 1, 2, 3, 7], 8) == []


def test_what_followed_three_ids_counts_more_than_what_followed_two_of_them_later():
    ids = [7, 1, 2, 3, 3, 8, 1, 2, 5, 5, 7, 1, 2]
    assert Lookup(8).guess(ids, 8) == [3, 3]
    assert Lookup(8).guess([0, *ids[1:]], 8) == [5, 5]


def test_a_guess_reaches_further_the_more_was_right_and_goes_round_where_it_repeats_itself():
    lookup, ids = Lookup(8), [1, 2, 3, 1, 2, 3]
    assert lookup.guess(ids, 8) == [1, 2]
    lookup.learn(2)
    assert lookup.guess(ids, 8) == [1, 2, 3, 1, 2, 3]
    lookup.learn(6)
    assert lookup.guess(ids, 8) == [1, 2, 3, 1, 2, 3, 1, 2]
    assert lookup.guess(ids, 3) == [1, 2, 3]
    assert lookup.guess(ids, 0) == []
    lookup.learn(0)
    assert lookup.guess(ids, 8) == [1, 2]
    assert Lookup(1).guess([4] * 5, 8) == [4]


@pytest.mark.parametrize("ids", [[], [1], [1, 1], [1, 2], [1, 2, 3], [1, 2, 1]])
def test_a_text_of_few_ids_has_nothing_to_look_up(ids):
    assert Lookup(8).guess(ids, 8) == []


def test_a_text_that_grows_is_looked_up_as_a_whole_one_is():
    rng, growing, ids = random.Random(4), Lookup(8), []
    for _ in range(300):
        ids += [rng.randrange(4) for _ in range(rng.randint(1, 6))]
        found = growing.guess(ids, 8)
        assert found == Lookup(8).guess(ids, 8)
        sizes = [size for size in (3, 2) if size < len(ids)]
        places = [
            max((end for end in range(size, len(ids)) if ids[end - size : end] == ids[-size:]), default=0)
            for size in sizes
        ]  # fmt: skip
        place = next(filter(None, places), None)
        assert found[:1] == ([] if place is None else [ids[place]])


# the same ids in fewer steps


@pytest.mark.parametrize("forward", FORWARD, ids=["plain", "packed"])
@pytest.mark.parametrize("module", [gpt2, llama])
def test_ids_and_log_probabilities_are_those_of_one_by_one(module, forward):
    rng, saved = random.Random(3), 0
    asked = [
        {"temperature": 0.0},
        {"temperature": 0.3},
        {"temperature": 0.3, "top_k": 5, "repetition_penalty": 1.05},
        {"temperature": 0.2, "frequency_penalty": 0.05, "presence_penalty": 0.1},
    ]
    sampler, _ = standard()
    with_it, without = (Watched(module(), lookup, (sampler, None), **forward) for lookup in (8, 0))
    for number in range(24):
        _, parameters = standard(**asked[number % 4])
        prompt = [rng.randrange(256) for _ in range(rng.randint(2, 12))] * rng.randint(1, 4)
        fields = {"seed": number, "logprobs": number % 3, "new": 40, "parameters": parameters}
        fields |= {"ends": frozenset([257, 5, 6]), "min_length": len(prompt) + number}
        expected, steps = without.run(prompt, **fields)
        found, fewer = with_it.run(prompt, **fields)
        assert told(found) == told(expected)
        assert fewer <= steps == len(expected)
        saved += steps - fewer
        for one, other in zip(found, expected, strict=True):
            assert one.logprob.logprob == pytest.approx(other.logprob.logprob, abs=1e-4)
            assert [p for _, p in one.logprob.top] == pytest.approx(
                [p for _, p in other.logprob.top], abs=1e-4
            )
    if module is gpt2:  # whose texts repeat themselves
        assert saved > 20


def test_a_text_that_is_copied_comes_in_a_fraction_of_the_steps():
    engine = Watched()
    outcomes, calls = engine.run(SONG, script=SONG * 3, new=len(SONG) * 3)
    assert told(outcomes)[-1] == (SONG[-1], "length")
    assert [each.id for each in outcomes] == SONG * 3
    assert calls < len(SONG)
    assert max(engine.calls[1:]) == (1, 1 + 8)


def test_samplers_see_ids_one_by_one():
    seen = []

    class Noted(Say):
        def adjust(self, logits, rows):
            assert logits.shape[0] == len(rows.history) == 1
            seen.append((list(rows.history[0]), rows.uniform.item(), *rows.keys))
            return super().adjust(logits, rows)

    for lookup in (8, 0):
        engine = Watched(lookup=lookup, sampler=(Noted(), None))
        engine.run(SONG, script=SONG[:20], new=20, seed=4)
    assert len(seen) == 40
    assert seen[:20] == seen[20:]


def test_nothing_is_guessed_beyond_the_last_id():
    for new in range(1, 30):
        engine, positions = Watched(), []
        engine.module.transformer.wpe.register_forward_pre_hook(
            lambda _, args, positions=positions: positions.append(args[0].amax().item())
        )
        outcomes, _ = engine.run(SONG * 2, script=SONG * 2, new=new)
        *others, last = told(outcomes)
        assert others == [(i, None) for i in (SONG * 2)[: new - 1]]
        assert last == ((SONG * 2)[new - 1], "length")
        assert max(positions) == len(SONG) * 2 + new - 2  # nothing follows the last


@pytest.mark.parametrize("ends", [b"i", b"o", b"oi", b" "])
@pytest.mark.parametrize("least", [0, 10, 30])
def test_an_id_that_ends_the_text_ends_it_within_a_guess(ends, least):
    fields = {"script": SONG * 3, "new": len(SONG) * 3, "ends": frozenset(ends)}
    fields["min_length"] = len(SONG) * 2 + least
    expected, _ = Watched(lookup=0).run(SONG * 2, **fields)
    prefixes = Prefixes(1e8)
    engine = Watched(prefixes=prefixes)
    found, fewer = engine.run(SONG * 2, **fields)
    assert told(found) == told(expected)
    assert told(found)[-1][1] == "stop"
    assert fewer < len(found)
    assert len(prefixes._kept[-1][0]) == len(SONG) * 2 + len(found) - 1


def test_a_module_without_a_cache_is_asked_for_nothing_more():
    engine = Watched(supports_cache=False)
    outcomes, calls = engine.run(SONG, script=SONG, new=len(SONG))
    assert calls == len(outcomes) == len(SONG)


def test_a_state_that_a_sampler_keeps_of_a_request_goes_on_id_by_id():
    pytest.importorskip("llguidance")
    offer = registry().find("sampler", "constraint")
    settings = validate(offer.settings_class(), {"regex": "(la la (li|lo) ){6}!"})
    tokenizer = registry().find("tokenizer", "bytes").build(None)
    calls = []
    for lookup in (8, 0):
        engine = Watched(lookup=lookup)
        engine.scheduler._sampling = Sampling(
            [(offer.build(settings), settings)], [256, 258], tokenizer
        )
        outcomes, steps = engine.run(SONG, parameters=settings, new=80, ends=frozenset([257]))
        text = bytes(each.id for each in outcomes[:-1]).decode()
        assert len(text) == 55
        assert told(outcomes)[-1] == (257, "stop")
        calls.append((text, steps))
    (text, fewer), (expected, steps) = calls
    assert text == expected
    assert fewer < steps * 0.7


# others


def test_nothing_is_guessed_while_others_run_or_come():
    engine, alone = Watched(), Watched(lookup=0)
    scripts = [SONG * 4, (SONG * 4)[3:]]
    first = engine.submit(SONG, script=scripts[0], new=100)
    while (1, 9) not in engine.calls:
        engine.step()
    engine.calls.clear()
    second = engine.submit(range(100), new=30)
    while not second.begun:
        engine.step()
    assert all(shape[1] == 1 for shape in engine.calls[::2])  # the others are the prompt's pieces
    engine.calls.clear()
    outcomes = []
    while second in engine.scheduler.running:
        outcomes += engine.step()
    assert set(engine.calls) == {(2, 1)}
    engine.run()
    assert first.ids == SONG + SONG * 3 + SONG[:19]
    assert (1, 9) in engine.calls  # again, once it is alone
    expected, _ = alone.run(range(100), new=30)
    assert second.ids[100:] == [each.id for each in expected]


@pytest.mark.parametrize("forward", FORWARD, ids=["plain", "packed"])
def test_what_a_wrong_guess_left_is_seen_by_nobody(forward):
    """Not even through a mask: here it is not even a number."""
    spoilt, shapes = [], []

    def spoil(_, args, out):
        if args[0].shape[1] > 1 and spoilt:
            shapes.append(tuple(args[0].shape))
            out[:, 1:] = torch.nan
        return out

    def generate(lookup):
        engine = Watched(lookup=lookup, **forward)
        engine.module.transformer.wte.register_forward_hook(spoil)
        short = engine.submit([5], new=3)
        first = engine.submit(SONG, script=SONG * 2, new=54)
        while short in engine.scheduler.running or not short.begun:  # so that there are two slots
            engine.step()
        while len(first.ids) < 42:
            engine.step()
        spoilt.append(True)
        engine.step()
        spoilt.clear()
        second = engine.submit(range(90, 150), new=20)
        engine.step()
        assert engine.scheduler.running == [first, second]
        outcomes, _ = engine.run()
        assert not any(isinstance(each, Fault) for each in outcomes)
        return first.ids, second.ids

    expected = generate(0)
    assert generate(8) == expected
    assert shapes == [(1, 9)]


def test_numbers_that_are_none_fail_a_request_at_the_id_they_would_have_failed_it_at():
    for position in range(len(SONG) + 3, len(SONG) + 25):
        module = gpt2()
        with torch.no_grad():
            module.transformer.wpe.weight[position] = torch.nan
        expected, _ = Watched(module, lookup=0).run(SONG, script=SONG * 2, new=40)
        engine = Watched(module)
        found, _ = engine.run(SONG, script=SONG * 2, new=40)
        assert told(found) == told(expected)
        assert isinstance(found[-1], Fault)
        assert len(found) == position - len(SONG) + 2
        assert engine.scheduler.idle


def test_a_sampler_that_fails_within_a_guess_fails_the_request_there():
    class Tired(Say):
        def adjust(self, logits, rows):
            if len(rows.history[0]) == len(SONG) + 21:
                raise ZeroDivisionError("tired")
            return super().adjust(logits, rows)

    engine = Watched(sampler=(Tired(), None))
    outcomes, calls = engine.run(SONG, script=SONG * 2, new=40)
    assert calls < 20
    assert [each.id for each in outcomes[:-1]] == SONG[:21]
    assert "the sampler Tired failed: ZeroDivisionError: tired" in told(outcomes)[-1]


def test_a_request_that_is_cancelled_between_guesses_leaves_nothing():
    engine = Watched()
    row = engine.submit(SONG, script=SONG * 4, new=100)
    while len(row.ids) < 60:
        engine.step()
    engine.scheduler.cancel(row)
    assert engine.scheduler.idle
    assert engine.scheduler.cache.lengths == []
    outcomes, _ = engine.run(SONG, script=SONG, new=len(SONG))
    assert [each.id for each in outcomes] == SONG


def test_what_is_kept_of_a_text_is_what_it_was_and_not_what_was_guessed():
    rng, sampler = random.Random(9), standard(temperature=0.3)
    warm, cold = (
        Watched(sampler=sampler, prefixes=Prefixes(1e8)),
        Watched(lookup=0, sampler=sampler),
    )
    wrong = 0
    for _ in range(5):
        said = [rng.randrange(256) for _ in range(8)] * 3
        for turn in range(3):
            fields = {"new": 30, "parameters": sampler[1], "seed": turn}
            expected, _ = cold.run(said, **fields)
            found, _ = warm.run(said, **fields)
            assert told(found) == told(expected)
            said += [each.id for each in found] + [rng.randrange(256)]
            if turn:  # the turn before was there, but for its last id
                assert warm.calls[0][1] <= 3
            wrong += sum(new for _, new in warm.calls[1:]) - len(found[1:])
    assert wrong > 50


# the engine


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved model whose texts repeat themselves."""
    place = tmp_path_factory.mktemp("saved")
    model, tokenizer = registry().find("model", "gpt2"), registry().find("tokenizer", "bytes")
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": CONTEXT}
    settings = validate(model.settings_class(), sizes)
    module = model.build(settings).build(tokenizer.build(None)).eval()
    weights = gpt2(vocab_size=module.config.vocab_size).state_dict()
    module.load_state_dict(weights)
    for name in ("tokenizer", "model"):
        (place / name).mkdir()
    tokenizer.build(None).save(place / "tokenizer")
    components = {"model": record(model, settings), "tokenizer": record(tokenizer, None)}
    save_model(
        place / "model", model.build(settings), module, place / "tokenizer", components=components
    )
    return place / "model"


def served(directory, *samplers, **settings):
    offer = registry().find("engine", "local")
    chosen = validate(offer.settings_class(), {"device": "cpu", "precision": "fp32", **settings})
    return offer.build(chosen).for_artefact(directory, samplers)


def calls_of(engine):
    calls = []
    engine._served.forward.module.register_forward_pre_hook(
        lambda _, __, named: calls.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    return calls


def say(text, **fields):
    return Request(
        bytes(SONG).decode() * 2, parameters={"ids": list(text)}, max_new_tokens=len(text), **fields
    )


@pytest.mark.parametrize(
    ("settings", "guesses"), [({}, True), ({"lookup": 0}, False), ({"pack": False}, False)], ids=str
)
def test_a_saved_model_is_served_so_unless_settings_say_otherwise(saved, settings, guesses):
    engine = served(saved, (Say(), SaySettings()), **settings)
    calls = calls_of(engine)
    found = asyncio.run(engine.generate(say(bytes(SONG))))
    asyncio.run(engine.close())
    assert found.ids == tuple(SONG)
    assert (len(calls) < len(SONG)) is guesses


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_requests_generate_alone_what_they_do_among_others_and_one_by_one(saved, count):
    rng = random.Random(count)
    requests = []
    for _ in range(count):
        some = [rng.randrange(256) for _ in range(rng.randint(1, 12))]
        parameters = {
            "temperature": rng.choice([0, 0.2, 0.5, 1]),
            "top_k": rng.choice([0, 0, 5, 40]),
            "repetition_penalty": rng.choice([1, 1, 1.2]),
        }
        requests.append(
            Request(
                tuple(some * rng.randint(1, 5)),
                max_new_tokens=rng.randint(1, 24),
                seed=rng.randrange(2**40),
                parameters=parameters,
            )
        )

    async def one_by_one(engine):
        return [await engine.generate(request) for request in requests]

    async def together(engine):
        return await asyncio.gather(*map(engine.generate, requests))

    async def answered(how, engine):
        try:
            return await how(engine)
        finally:  # a thread that is in torch when Python ends would abort the process
            await engine.close()

    engines = [served(saved, standard(), lookup=n, max_waiting=count) for n in (8, 0, 8)]
    calls = [calls_of(engine) for engine in engines]
    alone, plain, among = (
        asyncio.run(answered(how, engine))
        for how, engine in zip((one_by_one, one_by_one, together), engines, strict=True)
    )
    assert alone == plain == among
    assert len(calls[0]) < len(calls[1]) - 20


@pytest.mark.parametrize("stop", ["li", "lo ", "a l", "never", " "])
def test_stop_strings_end_the_text_within_a_guess(saved, stop):
    async def chunks(lookup):
        engine = served(saved, (Say(), SaySettings()), lookup=lookup)
        found = [each async for each in engine.stream(say(bytes(SONG), stop=(stop,), logprobs=0))]
        assert engine.describe()["running"] == 0
        again = await engine.generate(say(bytes(SONG)))
        await engine.close()
        assert again.ids == tuple(SONG)
        return [(each.text, each.ids, each.finish_reason, len(each.logprobs)) for each in found]

    found = asyncio.run(chunks(8))
    assert found == asyncio.run(chunks(0))
    text, _, _ = bytes(SONG).decode().partition(stop)
    assert "".join(each[0] for each in found) == text
    assert [each[1:] for each in found] == [
        ((i,), None if n < len(found) else "length" if stop == "never" else "stop", 1)
        for n, i in enumerate(SONG[: len(found)], 1)
    ]


def test_an_iterator_that_is_closed_within_a_guess_frees_its_place(saved):
    engine = served(saved, (Say(), SaySettings()), max_running=1)

    async def close():
        async with aclosing(engine.stream(say(bytes(SONG * 4)))) as chunks:
            for _ in range(20):
                await anext(chunks)
        found = await asyncio.wait_for(engine.generate(say(bytes(SONG))), 20)
        assert found.ids == tuple(SONG)
        assert engine.describe()["running"] == engine.describe()["waiting"] == 0
        await engine.close()

    asyncio.run(close())
