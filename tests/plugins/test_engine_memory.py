"""What the engine `local` holds after many requests: the beginnings of texts that it may keep, and no more."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import aclosing

import pytest
import torch
from fst_engine.row import Row
from fst_engine.worker import Job

from fst_core import Request
from fst_core.artefacts import record
from fst_core.artefacts.model import save_model
from fst_core.plugins import registry
from fst_core.settings import validate

CONTEXT = 128
KEPT = 200_000
"""Bytes of beginnings that the engine may keep."""
REST = 20_000
"""Bytes for what one step leaves until the next."""


@pytest.fixture
def engine(tmp_path):
    """The engine over a tiny saved model."""
    model, tokenizer = registry().find("model", "gpt2"), registry().find("tokenizer", "bytes")
    small = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": CONTEXT}
    settings = validate(model.settings_class(), small)
    torch.manual_seed(228)
    made = tokenizer.build(None)
    module = model.build(settings).build(made).eval()
    (tmp_path / "tokenizer").mkdir()
    made.save(tmp_path / "tokenizer")
    (tmp_path / "model").mkdir()
    components = {"model": record(model, settings), "tokenizer": record(tokenizer, None)}
    save_model(
        tmp_path / "model",
        model.build(settings),
        module,
        tmp_path / "tokenizer",
        components=components,
    )
    offer = registry().find("engine", "local")
    own = validate(offer.settings_class(), {"device": "cpu", "prefix_gb": KEPT / 1e9})
    return offer.build(own).for_artefact(tmp_path / "model", [])


async def ask(engine, rng, places, *, leaves):
    """Ask for a text of some length; who leaves does so in the middle of it."""
    prompt = tuple(rng.randrange(256) for _ in range(rng.randint(1, CONTEXT // 2)))
    new = rng.randint(2, CONTEXT // 2)
    async with places, aclosing(engine.stream(Request(prompt, new, rng.randrange(1000)))) as chunks:
        count = 0
        async for _ in chunks:
            count += 1
            if leaves and count > new // 2:
                break


async def rest(engine):
    """Wait until nothing is running or waiting."""
    async with asyncio.timeout(30):
        while engine.describe()["running"] or engine.describe()["waiting"]:
            await asyncio.sleep(0.01)


def held():
    """Bytes of all tensors that live, and how many requests do."""
    gc.collect()
    objects = gc.get_objects()
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in objects
        if issubclass(type(t), torch.Tensor) and not t.is_mkldnn  # packed weights tell no size
    }
    return sum(storages.values()), sum(type(each) in {Row, Job} for each in objects)


@pytest.mark.slow
def test_three_hundred_requests_leave_nothing_but_the_beginnings_that_are_kept(engine):
    rng = random.Random(228)
    before, requests = held()

    async def hundred():
        places = asyncio.Semaphore(40)
        await asyncio.gather(
            *(ask(engine, rng, places, leaves=number % 3 == 0) for number in range(100))
        )
        await rest(engine)

    for _ in range(3):
        asyncio.run(hundred())
        now, left = held()
        assert left == requests
        assert KEPT // 2 < now - before < KEPT + REST
    asyncio.run(engine.close())
