"""The samplers of `fst_samplers`: which ids may be drawn, and how often they are."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from fst_core import Rows
from fst_core.errors import UserError
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import SamplerContract
from fst_core.testing.toys import ToyTokenizer

VOCABULARY = 1000


def sampler(use):
    return registry().find("sampler", use).build(None if use == "greedy" else parameters())


def parameters(**values):
    return validate(registry().find("sampler", "standard").settings_class(), values)


def rows(*each, history=None, uniform=None, prompt_lengths=()):
    return Rows(
        parameters=each,
        history=history or [[]] * len(each),
        uniform=torch.tensor(uniform or [0.5] * len(each), dtype=torch.float64),
        prompt_lengths=prompt_lengths,
    )


def adjusted(logits, *each, **kwargs):
    return sampler("standard").adjust(logits.clone(), rows(*each, **kwargs))


def random_logits(count=8, vocabulary=VOCABULARY, scale=3.0, seed=228):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, vocabulary, generator=generator) * scale


def kept(logits):
    return logits > -math.inf


# the contract of samplers


class TestGreedy(SamplerContract):
    use = "greedy"


class TestStandard(SamplerContract):
    use = "standard"
    settings = {"temperature": 0.8, "top_p": 0.9, "frequency_penalty": 0.5}
    overrides = {"top_k": 3, "repetition_penalty": 1.5}


class TestStandardAtItsDefaults(SamplerContract):
    use = "standard"
    overrides = {"temperature": 0}


class TestStandardWithWords(SamplerContract):
    use = "standard"
    settings = {"typical_p": 0.9, "ignored_words": ["word", "a"]}
    overrides = {"logit_bias": {"7": -100}}


# against transformers


def processors():
    from transformers.generation import logits_process as peer

    return {
        "temperature": peer.TemperatureLogitsWarper,
        "top_k": peer.TopKLogitsWarper,
        "top_p": peer.TopPLogitsWarper,
        "min_p": peer.MinPLogitsWarper,
        "typical_p": peer.TypicalLogitsWarper,
        "repetition_penalty": peer.RepetitionPenaltyLogitsProcessor,
    }


VALUES = {
    "temperature": [0.1, 0.7, 1.5, 3.0],
    "top_k": [1, 2, 50, 999, 1000, 5000],
    "top_p": [0.001, 0.1, 0.5, 0.9, 0.999],
    "min_p": [0.001, 0.05, 0.3, 1.0],
    "typical_p": [0.001, 0.2, 0.9, 0.999],
    "repetition_penalty": [0.5, 1.2, 5.0],
}
CASES = [(name, value) for name, values in VALUES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 12.0])
def test_each_parameter_keeps_and_changes_what_transformers_does(name, value, scale):
    logits = random_logits(scale=scale)
    history = torch.randint(
        VOCABULARY, (len(logits), 60), generator=torch.Generator().manual_seed(1)
    )
    expected = processors()[name](value)(history, logits.clone())
    each = [parameters(**{name: value})] * len(logits)
    found = adjusted(logits, *each, history=history.tolist())
    assert torch.equal(kept(found), kept(expected))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_all_parameters_apply_in_the_order_of_transformers():
    logits = random_logits(16)
    history = torch.randint(VOCABULARY, (16, 60), generator=torch.Generator().manual_seed(1))
    values = {
        "repetition_penalty": 1.3, "temperature": 0.8, "top_k": 40, "top_p": 0.8, "min_p": 0.05,
        "typical_p": 0.7,
    }  # fmt: skip
    expected = logits.clone()
    for name, value in values.items():
        expected = processors()[name](value)(history, expected)
    found = adjusted(logits, *[parameters(**values)] * 16, history=history.tolist())
    assert torch.equal(kept(found), kept(expected))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_a_vocabulary_of_the_size_of_gpt2_is_cut_as_transformers_cuts_it(scale):
    logits = random_logits(4, 50_260, scale)
    expected = processors()["top_p"](0.9)(None, logits.clone())
    found = adjusted(logits, *[parameters(top_p=0.9)] * 4)
    assert torch.equal(kept(found), kept(expected))


# rows


def mixed():
    each = [
        {},
        {"temperature": 0},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.5},
        {"min_p": 0.2},
        {"typical_p": 0.4},
        {"logit_bias": {"3": 9.5, "7": -100}},
        {"repetition_penalty": 2},
        {"presence_penalty": 1.5},
        {"frequency_penalty": -0.5},
        {"temperature": 2, "top_k": 100, "top_p": 0.9, "min_p": 0.01, "frequency_penalty": 1},
    ]
    return [parameters(**values) for values in each]


def test_every_row_has_its_own_parameters():
    each = mixed()
    logits = random_logits(len(each), 50_000)
    history = [[row, 7, 7, 49_999][: row % 5] for row in range(len(each))]
    lengths = [row % 2 for row in range(len(each))]
    together = adjusted(logits, *each, history=history, prompt_lengths=lengths)
    for row, own in enumerate(each):
        alone = adjusted(
            logits[row : row + 1], own, history=[history[row]], prompt_lengths=[lengths[row]]
        )
        assert torch.equal(together[row], alone[0]), own
    assert torch.equal(together[0], logits[0])


def test_the_defaults_change_nothing_and_touch_nothing():
    logits = random_logits()
    each = [parameters()] * len(logits)
    assert sampler("standard").adjust(logits, rows(*each)) is logits
    assert torch.equal(logits, random_logits())


@pytest.mark.parametrize("own", mixed(), ids=str)
def test_what_is_minus_infinity_stays_so_and_something_remains(own):
    logits = random_logits(1)
    logits[:, ::2] = -math.inf
    found = adjusted(logits, own, history=[[0, 1, 2, 2]])
    assert not kept(found)[:, ::2].any()
    assert kept(found).any()
    assert not found.isnan().any()


@pytest.mark.parametrize("own", mixed(), ids=str)
def test_a_faulty_row_disturbs_no_other(own):
    logits = random_logits(4)
    history = [[0, 1, 2, 2]] * 4
    expected = adjusted(logits, *[own] * 4, history=history)
    logits[1], logits[2] = math.nan, -math.inf
    found = adjusted(logits, *[own] * 4, history=history)
    assert torch.equal(found[[0, 3]], expected[[0, 3]])
    assert not kept(found[2]).any()


# greedy, ties


def test_greedy_takes_the_likeliest_id_whatever_the_chance():
    logits = random_logits()
    logits[0, [3, 5]] = 100.0
    for uniform in (0.0, 0.5, 1 - 2**-53):
        drawn = sampler("greedy").draw(logits, rows(*[None] * 8, uniform=[uniform] * 8))
        assert drawn.tolist() == [3, *logits[1:].argmax(-1).tolist()]
        assert drawn.dtype == torch.int64


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-9, 1e-300])
def test_temperature_zero_is_greedy(temperature):
    logits = random_logits()
    logits[0, [3, 5]] = 1e4
    each = [parameters(temperature=temperature, top_p=0.9, min_p=0.1, top_k=7)] * len(logits)
    found = adjusted(logits, *each)
    assert kept(found).sum(-1).tolist() == [1] * len(logits)
    assert torch.equal(found.argmax(-1), logits.argmax(-1))


def test_equal_logits_are_kept_or_left_out_together():
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for values in ({"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.3}):
        assert kept(adjusted(logits, parameters(**values))).tolist() == [[True] * 4 + [False]]


# penalties


def test_repetition_divides_positive_and_multiplies_negative_logits():
    logits = torch.tensor([[2.0, -2.0, 4.0, -4.0, 0.0]])
    own = parameters(repetition_penalty=2)
    found = adjusted(logits, own, history=[[0, 1, 1, 4]], prompt_lengths=[2])
    assert found.tolist() == [[1.0, -4.0, 4.0, -4.0, 0.0]]


def test_presence_and_frequency_count_what_was_generated():
    logits = torch.zeros(1, 5)
    own = parameters(presence_penalty=0.5, frequency_penalty=0.25)
    found = adjusted(logits, own, history=[[0, 1, 1, 2, 1, 1, 1]], prompt_lengths=[3])
    assert found.tolist() == [[0.0, -0.5 - 3 * 0.25, -0.5 - 0.25, 0.0, 0.0]]
    found = adjusted(logits, own, history=[[0, 1, 1]])
    assert found.tolist() == [[-0.75, -1.0, 0.0, 0.0, 0.0]]


# biases and words


def test_a_bias_is_added_to_its_ids_alone():
    logits = random_logits(1)
    found = adjusted(logits, parameters(logit_bias={"3": 2.5, "999": -100}))
    assert found[0, 3] == logits[0, 3] + 2.5
    assert found[0, 999] == logits[0, 999] - 100
    found[0, [3, 999]] = logits[0, [3, 999]]
    assert torch.equal(found, logits)


def test_a_bias_for_an_id_that_is_none_is_told():
    with pytest.raises(UserError, match="logit_bias: the id 1000 is not in the vocabulary of 1000"):
        adjusted(random_logits(), parameters(logit_bias={"1000": 1}), *[parameters()] * 7)


class Words(ToyTokenizer):
    """One id a letter, but for these words and beginnings of words."""

    pieces = ("cat", " cat", " con", "egory", " blue")
    vocab_size = VOCABULARY

    def encode(self, text):
        ids, at = [], 0
        while at < len(text):
            fitting = [p for p in self.pieces if text.startswith(p, at)]
            piece = max(fitting, key=len, default=text[at])
            ids.append(300 + self.pieces.index(piece) if piece in self.pieces else ord(piece))
            at += len(piece)
        return ids

    def decode(self, ids):
        return "".join(self.pieces[i - 300] if i >= 300 else chr(i) for i in ids)


@pytest.mark.parametrize(
    ("history", "word", "ruled_out"),
    [
        ("a", "cat", {" cat"}),  # "acat" would be another word
        ("a ", "cat", {" cat", "cat"}),
        ("", "cat", {" cat", "cat"}),
        (" con", "cat", {" cat"}),
        ("say bird", "birdie", set()),
        ("say birdi", "birdie", {"e"}),
        ("sbirdi", "birdie", set()),
        ("a blue ", "bluebird", set()),
        ("a bluebir", "bluebird", {"d"}),
    ],
)
def test_a_word_that_is_ignored_is_never_completed(history, word, ruled_out):
    tokenizer = Words()
    own = [parameters(ignored_words=[word]), parameters()]
    each = replace(rows(*own, history=[tokenizer.encode(history)] * 2), tokenizer=tokenizer)
    logits = random_logits(2)
    found = sampler("standard").adjust(logits.clone(), each)
    expected = {i for text in ruled_out for i in tokenizer.encode(text)}
    assert set((found[0] == -math.inf).nonzero().squeeze(1).tolist()) == expected
    assert torch.equal(found[1], logits[1])


def test_a_word_is_ignored_however_near_the_beginning_the_text_is():
    tokenizer = Words()
    for text in ("", "b", "bl", "cat"):
        each = rows(parameters(ignored_words=["bluebird"]), history=[tokenizer.encode(text)])
        found = sampler("standard").adjust(random_logits(1), replace(each, tokenizer=tokenizer))
        assert kept(found).all()


# settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("temperature", 1e300),
        ("temperature", "1"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0),
        ("repetition_penalty", -1),
        ("repetition_penalty", math.inf),
        ("presence_penalty", 2.1),
        ("presence_penalty", math.nan),
        ("frequency_penalty", -2.1),
        ("typical_p", 0),
        ("typical_p", 1.1),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"one": 1}),
        ("ignored_words", [""]),
        ("ignored_words", "word"),
        ("no_such_key", 0.5),
    ],
)
def test_values_out_of_bounds_are_refused(name, value):
    with pytest.raises(ValidationError):
        parameters(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": 100},
        {"temperature": 1e-5},
        {"top_k": 10**18},
        {"top_p": 1e-300},
        {"top_p": 1 - 1e-16},
        {"min_p": 1e-300},
        {"repetition_penalty": 0.01},
        {"repetition_penalty": 100},
    ],
)
def test_values_at_the_bounds_give_finite_numbers(values):
    logits = random_logits(scale=30)
    found = adjusted(logits, *[parameters(**values)] * 8, history=[list(range(1000))] * 8)
    assert kept(found).any(-1).all()
    assert found[kept(found)].isfinite().all()


# drawing


@pytest.mark.parametrize("left", [1, 50, 256, 300, 1000])
def test_a_draw_looks_at_what_is_left_and_draws_the_same_whatever_else_is_in_the_batch(left):
    logits = random_logits(40)
    ruled_out = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(left))[left:]
    logits[:, ruled_out] = -math.inf
    uniform = [i / 40 for i in range(40)]
    found = sampler("standard").draw(logits, rows(*[parameters()] * 40, uniform=uniform))
    cumulative = logits.double().softmax(-1).cumsum(-1)
    expected = [int((row <= u).sum()) for row, u in zip(cumulative, uniform, strict=True)]
    assert found.tolist() == expected
    flat = torch.cat([logits, torch.zeros(1, VOCABULARY)])
    together = rows(*[parameters()] * 41, uniform=[*uniform, 0.5])
    assert sampler("standard").draw(flat, together).tolist()[:-1] == expected


def test_ids_are_drawn_as_often_as_their_probability_says():
    probabilities = torch.tensor([0.5, 0.0, 0.3, 0.2])
    count = 1000
    uniform = [(i + 0.5) / count for i in range(count)]
    drawn = sampler("standard").draw(
        probabilities.log().repeat(count, 1), rows(*[parameters()] * count, uniform=uniform)
    )
    assert Counter(drawn.tolist()) == {0: 500, 2: 300, 3: 200}
