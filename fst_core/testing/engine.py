"""The contract of engines."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import pytest
import torch  # noqa: TID253  # an engine's contract needs a module

from fst_core import Request
from fst_core.errors import FstError, UnsupportedParameter, UserError
from fst_core.testing.component import ComponentContract
from fst_core.testing.toys import ToySampler, ToySamplerSettings, ToyTokenizer, toy_module

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fst_core import Chunk, Engine, Generation

__all__ = ["EngineContract"]

Result = TypeVar("Result")

CONTEXT = 64
"""The context length of the module."""
FAULTY = 0
"""An id with which a faulty module raises."""


class EngineContract(ComponentContract):
    """What every engine does. A subclass names it.

        class TestLocal(EngineContract):
            use = "local"

    An engine that has no module of its own overrides `over`: it serves the module in some way, and
    returns an engine that asks there.

    It asserts that a request gives the same ids alone, among others, and without a cache, greedy
    and seeded; that closing its iterator, or cancelling who waits, ends it and nothing else; that
    an unsupported parameter is refused by its name, and a prompt without room; that a faulty
    request fails alone; that chunks joined are the whole, and the last alone has a finish reason;
    that stop strings and the end of a document end the text and never show; that `max_new_tokens`
    is kept to; that the module stays as it was, and torch's generator too; and that a closed engine
    refuses requests.
    """

    kind: ClassVar[str] = "engine"
    seconds: ClassVar[float] = 60.0
    """How long a test may take."""

    def over(self, module: torch.nn.Module, *, context_length: int, supports_cache: bool) -> Engine:
        """Return the engine over a module for `ToyTokenizer`, with one sampler, `ToySampler`."""
        engine: Engine = self.build()
        settings = ToySamplerSettings()
        return engine.for_module(
            module,
            ToyTokenizer(),
            [(ToySampler(settings), settings)],
            context_length,
            supports_cache=supports_cache,
        )

    def test_it_describes_itself(self) -> None:
        """Frontends show it as JSON."""

        async def describe(engine: Engine) -> None:
            assert json.dumps(dict(engine.describe())) != "{}"

        self._with_engine(describe)

    @pytest.mark.parametrize("supports_cache", [True, False])
    def test_alone_equals_among_others(self, supports_cache: bool) -> None:
        """Whatever runs beside it, joins it or leaves it, a request gives the same ids."""
        requests = _requests()

        async def alone(engine: Engine) -> list[Generation]:
            return [await engine.generate(request) for request in requests]

        async def at_once(engine: Engine) -> list[Generation]:
            return await asyncio.gather(*(engine.generate(request) for request in requests))

        async def joining(engine: Engine) -> list[Generation]:
            tasks = []
            for request in reversed(requests):
                tasks.append(asyncio.create_task(engine.generate(request)))
                await asyncio.sleep(0.003)
            return (await asyncio.gather(*tasks))[::-1]

        expected = self._with_engine(alone)
        assert len({generation.ids for generation in expected}) == len(requests)
        module = toy_module(CONTEXT)
        if not supports_cache:
            module.register_forward_pre_hook(_fail_on_cache, with_kwargs=True)
        for others in (alone, at_once, joining):
            found = self._with_engine(others, module, supports_cache=supports_cache)
            assert found == expected

    def test_seeds_decide(self) -> None:
        """Equal seeds give equal ids and others do not; where an id is certain, seeds do not matter."""

        async def draw(engine: Engine) -> None:
            drawn = [await engine.generate(_request(seed=seed)) for seed in (1, 2, 1, 2**62)]
            assert drawn[0] == drawn[2]
            assert len({generation.ids for generation in drawn}) == 3
            greedy = [await engine.generate(_greedy(seed=seed)) for seed in (1, 2)]
            assert greedy[0] == greedy[1]

        self._with_engine(draw)

    def test_greedy_ids_are_the_modules_own(self) -> None:
        """Each is the likeliest after all that precede it, by the module called plainly."""
        prompt = ToyTokenizer().encode_prompt("To be")

        async def generate(engine: Engine) -> Generation:
            return await engine.generate(_greedy(prompt=tuple(prompt), max_new_tokens=20))

        module = toy_module(CONTEXT)
        ids = self._with_engine(generate, module).ids
        logits = module(input_ids=torch.tensor([[*prompt, *ids]])).logits[0]
        assert list(ids) == logits.argmax(-1)[len(prompt) - 1 : -1].tolist()

    def test_a_text_prompt_is_the_beginning_of_a_document(self) -> None:
        """Text goes through `encode_prompt`; ids are used as they are."""

        async def both(engine: Engine) -> None:
            for text in ("", "To be"):
                ids = tuple(ToyTokenizer().encode_prompt(text))
                by_text = await engine.generate(_request(prompt=text))
                assert await engine.generate(_request(prompt=ids)) == by_text
            with_bos = await engine.generate(_request(prompt=(ToyTokenizer.bos_id, 97)))
            without = await engine.generate(_request(prompt=(97,)))
            assert with_bos.ids != without.ids

        self._with_engine(both)

    def test_chunks_joined_are_the_whole(self) -> None:
        """They come one by one, their text is that of their ids, and the last alone says why it ended."""

        async def stream(engine: Engine) -> None:
            for request in _requests():
                chunks = await _chunks(engine, request)
                whole = await engine.generate(request)
                ids = [i for chunk in chunks for i in chunk.ids]
                assert len(chunks) > 1
                assert ids == list(whole.ids)
                assert "".join(chunk.text for chunk in chunks) == whole.text
                assert _whole(whole.text) == _whole(ToyTokenizer().decode(ids))
                assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
                assert chunks[-1].finish_reason == whole.finish_reason == "length"

        self._with_engine(stream)

    def test_stop_strings_end_the_text_and_never_show(self) -> None:
        """Not even their beginnings, which come in chunks of their own; others change nothing."""

        async def stop(engine: Engine) -> None:
            request = _request(max_new_tokens=50)
            whole = (await engine.generate(request)).text
            for length in (1, 2, 7):
                start = next(i for i in range(5, 40) if whole[i : i + length].isascii())
                found = whole[start : start + length]
                for stops in ((found,), ("never written", found)):
                    chunks = await _chunks(engine, replace(request, stop=stops))
                    assert "".join(c.text for c in chunks) == whole[: whole.index(found)]
                    assert chunks[-1].finish_reason == "stop"
            elsewhere = await engine.generate(replace(request, stop=("never written",)))
            assert elsewhere.text == whole
            assert elsewhere.finish_reason == "length"

        self._with_engine(stop)

    def test_the_end_of_a_document_ends_the_text(self) -> None:
        """The reason is "stop", and the text shows nothing of it."""

        async def end(engine: Engine) -> None:
            prompt = ToyTokenizer().encode_prompt("To be")
            for request in (_request(), _greedy()):
                generation = await engine.generate(replace(request, prompt=tuple(prompt)))
                written = [i for i in generation.ids if i != ToyTokenizer.end_id]
                assert len(prompt) + len(written) == 20
                assert _whole(generation.text) == _whole(ToyTokenizer().decode(written))
                assert generation.finish_reason == "stop"

        self._with_engine(end, toy_module(CONTEXT, end_at=19))

    def test_no_more_ids_are_generated_than_asked_for(self) -> None:
        """`max_new_tokens`, or as many as the context has room for."""

        async def count(engine: Engine) -> None:
            for wanted in (1, 2, 9):
                generation = await engine.generate(_request(max_new_tokens=wanted))
                assert len(generation.ids) == wanted
                assert generation.finish_reason == "length"
            prompt = tuple(ToyTokenizer().encode_prompt("To be"))
            full = await engine.generate(Request(prompt=prompt))
            assert len(prompt) + len(full.ids) == CONTEXT
            assert full.finish_reason == "length"

        self._with_engine(count)

    def test_a_prompt_without_room_is_refused(self) -> None:
        """It is no prompt of this model: what is lost must not be chosen silently."""

        async def refuse(engine: Engine) -> None:
            for prompt in ("a" * 2 * CONTEXT, (97,) * (CONTEXT + 1)):
                with pytest.raises(UserError):
                    await engine.generate(_request(prompt=prompt))

        self._with_engine(refuse)

    def test_what_it_cannot_honour_is_refused_by_its_name(self) -> None:
        """A parameter that no sampler has is an UnsupportedParameter, one of a wrong type a UserError."""

        async def refuse(engine: Engine) -> None:
            with pytest.raises(UnsupportedParameter) as raised:
                await engine.generate(_request(parameters={"no_such_parameter": 1}))
            assert raised.value.parameter == "no_such_parameter"
            with pytest.raises(UserError):
                await engine.generate(_request(parameters={"greedy": "very"}))

        self._with_engine(refuse)

    def test_a_faulty_request_fails_alone(self) -> None:
        """An id outside of the vocabulary, or one with which the module fails, harms nobody else."""
        module = toy_module(CONTEXT)
        module.register_forward_pre_hook(_fail_on_faulty_id, with_kwargs=True)
        requests = _requests()

        async def fail(engine: Engine) -> None:
            expected = [await engine.generate(request) for request in requests]
            faulty = [_request(prompt=(97, FAULTY, 97)), _request(prompt=(97, 10**6))]
            together = (*requests[:3], *faulty, *requests[3:])
            found = await asyncio.gather(
                *(engine.generate(request) for request in together), return_exceptions=True
            )
            assert [*found[:3], *found[5:]] == expected
            assert all(isinstance(error, Exception) for error in found[3:5])
            assert await engine.generate(requests[0]) == expected[0]

        self._with_engine(fail, module)

    def test_a_closed_iterator_ends_its_request_and_no_other(self) -> None:
        """Others go on; the module is not called for it any more."""
        module = toy_module(2**14)
        calls: list[None] = []
        module.register_forward_pre_hook(lambda *_: calls.append(None))
        requests = _requests()

        async def close(engine: Engine) -> None:
            expected = [await engine.generate(request) for request in requests]
            others = [asyncio.create_task(engine.generate(request)) for request in requests]
            async with aclosing(engine.stream(Request(prompt="long"))) as chunks:
                await anext(chunks)
            waiting = asyncio.create_task(engine.generate(Request(prompt="long too")))
            await asyncio.sleep(0.01)
            waiting.cancel()
            assert await asyncio.gather(*others) == expected
            await asyncio.sleep(0.05)
            before = len(calls)
            await asyncio.sleep(0.1)
            assert len(calls) == before, "it still works for a request that was cancelled"
            assert await engine.generate(requests[0]) == expected[0]

        self._with_engine(close, module, context_length=2**14)

    def test_log_probabilities_are_the_modules_own(self) -> None:
        """One for each id, from the logits before any sampler, the likeliest beside it; or refused by name.

        An engine may know none but the chosen id's.
        """
        prompt = ToyTokenizer().encode_prompt("To be")

        async def generate(engine: Engine) -> tuple[Generation | None, int]:
            for top in (2, 0):  # some know the chosen id alone
                try:
                    found = await engine.generate(_request(prompt=tuple(prompt), logprobs=top))
                except UnsupportedParameter as refusal:
                    assert refusal.parameter == "logprobs", str(refusal)  # noqa: PT017  # it goes on
                else:
                    return found, top
            return None, 0

        module = toy_module(CONTEXT)
        generation, top = self._with_engine(generate, module)
        if generation is None:
            pytest.skip("the engine refuses logprobs")
        ids = generation.ids
        logits = module(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        assert generation.logprobs is not None
        assert [each.id for each in generation.logprobs] == list(ids)
        for each, row in zip(generation.logprobs, expected, strict=True):
            best = row.topk(top)
            assert each.logprob == pytest.approx(row[each.id].item(), abs=1e-4)
            assert [i for i, _ in each.top] == best.indices.tolist()
            assert [p for _, p in each.top] == pytest.approx(best.values.tolist(), abs=1e-4)

    def test_the_module_stays_as_it_was(self) -> None:
        """A module in training goes on as if nobody had sampled from it; so does torch's generator."""
        module = toy_module(CONTEXT).train()
        weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        state = torch.get_rng_state()

        async def generate(engine: Engine) -> None:
            await asyncio.gather(*(engine.generate(request) for request in _requests()))

        self._with_engine(generate, module)
        assert module.training
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert all(torch.equal(weights[name], now) for name, now in module.state_dict().items())
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_closed_engine_refuses_requests(self) -> None:
        """Nobody waits for ever, not even who was being served; closing twice is no error."""

        async def close(engine: Engine) -> None:
            running = [asyncio.create_task(engine.generate(request)) for request in _requests()]
            await asyncio.sleep(0)
            await engine.close()
            await asyncio.gather(*running, return_exceptions=True)
            with pytest.raises(FstError):
                await engine.generate(_request())
            await engine.close()

        self._with_engine(close)

    def _with_engine(
        self,
        scenario: Callable[[Engine], Awaitable[Result]],
        module: torch.nn.Module | None = None,
        *,
        context_length: int = CONTEXT,
        supports_cache: bool = True,
    ) -> Result:
        """Return what a scenario returns of an engine, in an event loop of its own; then close it."""

        async def whole() -> Result:
            engine = self.over(
                toy_module(CONTEXT) if module is None else module,
                context_length=context_length,
                supports_cache=supports_cache,
            )
            try:
                return await asyncio.wait_for(scenario(engine), self.seconds)
            finally:
                await engine.close()

        return asyncio.run(whole())


def _request(**fields: Any) -> Request:
    return Request(**{"prompt": "The sun", "max_new_tokens": 30, "seed": 7, **fields})


def _greedy(**fields: Any) -> Request:
    return _request(parameters={"greedy": True}, **fields)


def _requests() -> list[Request]:
    """Requests of different prompts, lengths and seeds, half of them greedy."""
    prompts = ("", "a", "The sun rises", "Ещё", "x" * 30, "To be or not to be", "abcdefg", "é")
    return [
        Request(prompt, 10 + 2 * i, seed=i, parameters={"greedy": i % 2 == 0})
        for i, prompt in enumerate(prompts)
    ]


async def _chunks(engine: Engine, request: Request) -> list[Chunk]:
    return [chunk async for chunk in engine.stream(request)]


def _whole(text: str) -> str:
    """Return a text without the character that its end cut, which an engine may show or not."""
    return text.rstrip("\ufffd")


def _fail_on_cache(_: torch.nn.Module, __: Any, named: dict[str, Any]) -> None:
    if named.get("past_key_values") is not None:
        raise RuntimeError("the module takes no cache")


def _fail_on_faulty_id(_: torch.nn.Module, positional: Any, named: dict[str, Any]) -> None:
    ids = named["input_ids"] if "input_ids" in named else positional[0]
    if (ids == FAULTY).any():
        raise RuntimeError("the module fails with this id")
