"""The engine `local` reads a beginning that it has read before no second time."""

from __future__ import annotations

import random

import pytest
import torch
from fst_engine.forward import Forward
from fst_engine.prefixes import LEAST_SHARED, Prefixes
from fst_engine.row import Fault, Row
from fst_engine.sampling import Sampling
from fst_engine.scheduler import Scheduler
from transformers import GPT2Config, GPT2LMHeadModel

from fst_core import Sampler

VOCABULARY = 259


class Greedy(Sampler):
    def draw(self, logits, rows):
        return logits.argmax(-1)


class Counted:
    """A scheduler, and how many ids its module has read."""

    def __init__(self, kept_bytes=1e8, max_running=8):
        torch.manual_seed(228)
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=512, n_layer=2, n_embd=32, n_head=4,
            initializer_range=0.3,
        )  # fmt: skip
        self.module = GPT2LMHeadModel(config).eval()
        self.read = 0
        self.module.register_forward_pre_hook(self._count, with_kwargs=True)
        self.prefixes = None if kept_bytes is None else Prefixes(kept_bytes)
        self.scheduler = Scheduler(
            Forward(self.module, VOCABULARY, in_training=False),
            Sampling([(Greedy(), None)]),
            max_running=max_running,
            prefill_chunk=64,
            cache_bytes=1e9,
            prefixes=self.prefixes,
        )

    def _count(self, _, __, kwargs):
        self.read += kwargs["input_ids"].numel()

    def submit(self, prompt, new=8, prompt_logprobs=None):
        row = Row(
            list(prompt), len(prompt), len(prompt) + new, seed=0, parameters=(None,),
            prompt_logprobs=prompt_logprobs,
        )  # fmt: skip
        self.scheduler.submit(row)
        return row

    def run(self, *prompts, new=8, **asked):
        """Generate, and return what, and how many ids were read for it."""
        before = self.read
        made = [self.submit(prompt, new, **asked) for prompt in prompts]
        outcomes = []
        while not self.scheduler.idle:
            outcomes += self.scheduler.step()
        assert not any(isinstance(outcome, Fault) for outcome in outcomes)
        return [row.ids[row.prompt_length :] for row in made], self.read - before


def prompt(length, seed=0):
    return random.Random(seed).choices(range(256), k=length)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_next_turn_of_a_conversation_reads_the_new_ids_alone():
    warm, cold = Counted(), Counted(kept_bytes=None)
    said = prompt(100)
    for turn in range(4):
        (answer,), read = warm.run(said)
        ((expected,), _) = cold.run(said)
        assert answer == expected
        # All that was said before, but the last id of the answer, which nothing followed.
        assert read == (100 + 7 if turn == 0 else 20 + 1 + 7)
        said = said + answer + prompt(20, seed=turn + 1)


def test_several_generations_of_one_prompt_read_it_once():
    warm, cold = Counted(), Counted(kept_bytes=None)
    said = prompt(100)
    answers, read = warm.run(*[said] * 4)
    assert answers == cold.run(*[said] * 4)[0]
    assert read == 100 + 3 * 1 + 4 * 7


def test_prompts_that_share_too_little_share_nothing():
    engine = Counted()
    shared = prompt(LEAST_SHARED - 1)
    first, second = [*shared, 1, *prompt(40, 1)], [*shared, 2, *prompt(40, 2)]
    _, read = engine.run(first, second)
    assert read == len(first) + len(second) + 2 * 7


def test_mixed_prompts_generate_what_they_do_alone():
    rng = random.Random(5)
    texts = [prompt(200, seed) for seed in range(4)]
    prompts = [
        [*rng.choice(texts)[: rng.randint(1, 200)], *prompt(rng.randint(0, 30), seed)]
        for seed in range(60)
    ]
    expected = [Counted(kept_bytes=None).run(each)[0][0] for each in prompts]
    warm = Counted()
    answers, read = warm.run(*prompts)
    assert answers == expected
    assert read < sum(map(len, prompts)) * 0.7


def test_a_prompt_whose_log_probabilities_are_wanted_is_read_whole():
    engine = Counted()
    said = prompt(60)
    engine.run(said)
    assert engine.run(said, new=0, prompt_logprobs=1)[1] == 60


def test_a_prompt_whose_log_probabilities_are_wanted_waits_for_nobody_with_the_same_beginning():
    engine = Counted()
    said = prompt(100)
    written = engine.submit(said, new=60)
    while not written.begun:
        engine.scheduler.step()
    scored = engine.submit([*said, 5], new=0, prompt_logprobs=1)
    while scored.prompt_logprobs is not None:
        engine.scheduler.step()
        assert written in engine.scheduler.running


def test_what_is_kept_stays_within_its_bytes_and_the_longest_unused_goes():
    column = 2 * 2 * 32 * 4  # layers, keys and values, width, bytes
    engine = Counted(kept_bytes=2 * 256 * column)
    first, second, third = (prompt(60, seed) for seed in (1, 2, 3))
    engine.run(first)
    engine.run(second)
    assert engine.run(first)[1] == 1 + 7
    engine.run(third)
    assert engine.run(second)[1] == 60 + 7
    kept = list(engine.prefixes._kept)
    too_long = prompt(500, 4)
    engine.prefixes._most_bytes = 256 * column
    engine.run(too_long)
    assert engine.prefixes._kept == kept


def test_what_a_failed_row_left_is_not_used():
    engine = Counted()
    said = prompt(60)
    row = engine.submit(said, new=50)
    while not row.ids[60:]:
        engine.scheduler.step()
    engine.scheduler.cache._layers[0][0].fill_(torch.nan)
    assert isinstance(engine.scheduler.step()[0], Fault)
    assert engine.run(said) == Counted(kept_bytes=None).run(said)
