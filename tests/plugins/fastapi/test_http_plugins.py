"""Other people's parts: a sampler, a chat template and another server before this one (S10, X2, G6)."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace

import pytest
from fst_engine.prompts import Prompts
from fst_engine.remote import RemoteEngine
from fst_engine.settings import RemoteSettings
from fst_samplers.settings import StandardSettings
from fst_samplers.standard import StandardSampler
from wire import Slow, run, serving, toy_engine, until

from fst_core import Message, Request
from fst_core.chat import ChatTemplate
from fst_core.errors import EngineBusy, UnsupportedParameter, UserError
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing.toys import ToyTokenizer

SAMPLER = '''
import torch
from pydantic import Field
from fst_core import Component, Sampler, Settings, hookimpl
from fst_core.errors import FstError, UserError

@hookimpl
def fst_samplers():
    yield Component("moody", "moody_sampler:Moody", "Has moods.", settings="moody_sampler:MoodySettings")

class MoodySettings(Settings):
    """Settings of the sampler `moody`."""
    mood: int = Field(0, ge=0, le=9)
    """How it feels."""
    colours: tuple[str, ...] = Field((), max_length=3)
    """What it sees."""

class Moody(Sampler):
    def __init__(self, settings):
        self.settings = settings

    def adjust(self, logits, rows):
        moods = [p.mood for p in rows.parameters]
        if 7 in moods:
            raise RuntimeError("in a bad mood")
        if 6 in moods:
            raise FstError("in no mood")
        if 5 in moods:
            try:
                int("happy")
            except ValueError as error:
                raise UserError("mood = 5: nobody has it") from error
        if 8 in moods:
            logits[moods.index(8)] = float("nan")
        if 9 in moods:
            return logits[:, :3]
        for row, mood in enumerate(moods):
            if mood == 1:
                logits[row] = float("-inf")
                logits[row, 122] = 0.0
        return logits
'''
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def moody(tmp_path, monkeypatch):
    """A third party's sampler, installed."""
    (tmp_path / "moody_sampler.py").write_text(SAMPLER)
    about = tmp_path / "moody-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[fst]\nmoody = moody_sampler\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.cache_clear()
    offer = registry().find("sampler", "moody")
    settings = validate(offer.settings_class(), {})
    yield [(offer.build(settings), settings)]
    registry.cache_clear()
    sys.modules.pop("moody_sampler", None)


def test_a_third_party_s_sampler_has_its_fields_everywhere(moody):
    async def scenario(site):
        usual = {"prompt": "abc", "max_tokens": 5}
        assert (await site.complete(**usual, mood=1))["choices"][0]["text"] == "zzzzz"
        chat = (await site.post(CHAT, {"messages": HI, "mood": 1, "max_tokens": 3})).json()
        assert chat["choices"][0]["message"]["content"] == "zzz"
        for field, value, param in [
            ("mood", 10, "mood"), ("mood", "good", "mood"), ("mood", 1.5, "mood"),
            ("colours", ["a"] * 4, "colours"), ("colours", [1], "colours[0]"), ("mod", 1, "mod"),
        ]:  # fmt: skip
            answer = await site.post("/v1/completions", {**usual, field: value})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        (model,) = (await site.get("/v1/models")).json()["data"]
        assert model["sampling"]["mood"]["maximum"] == 9
        assert model["sampling"]["mood"]["default"] == 0
        document = (await site.get("/openapi.json")).json()
        for path in ("/v1/completions", CHAT, "/generated_texts/"):
            content = document["paths"][path]["post"]["requestBody"]["content"]
            said = content["application/json"]["schema"]["properties"]["mood"]
            assert said["description"] == "How it feels."
            assert {
                name: value
                for name, value in said["anyOf"][0].items()
                if name[:3] in ("max", "min")
            } == {"maximum": 9, "minimum": 0}
        assert "How it feels." in (await site.get("/docs")).text

    run(scenario, toy_engine(more=moody))


def test_a_sampler_that_fails_fails_its_own_request_alone(moody):
    async def scenario(site):
        def ask(number, mood):
            body = {"prompt": f"{number}", "seed": number, "max_tokens": 12, "mood": mood}
            return site.post("/v1/completions", body)

        alone = [(await ask(number, 0)).json()["choices"] for number in range(7)]
        for mood in (6, 7, 8, 9):
            *good, bad = await asyncio.gather(*(ask(n, 0) for n in range(7)), ask(9, mood))
            assert [answer.json()["choices"] for answer in good] == alone
            assert bad.status_code == 500
            assert bad.headers["x-request-id"] in bad.json()["error"]["message"]
            streamed = await site.post(
                "/v1/completions", {"prompt": "a", "mood": mood, "stream": True}
            )
            assert streamed.status_code == 500
        assert (await site.get("/readyz")).status_code == 200
        text = (await site.get("/metrics")).text
        assert 'fst:plugin_errors_total{plugin="moody"} 4.0' in text

    run(scenario, toy_engine(more=moody))


def test_what_a_sampler_refuses_is_the_client_s_error_and_no_plugin_s(moody):
    async def scenario(site):
        for body in ({}, {"stream": True}):
            answer = await site.post("/v1/completions", {"prompt": "a", "mood": 5, **body})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "mood")
        assert await site.metric("fst:plugin_errors_total") == 0
        assert 'fst:requests_total{outcome="rejected"} 2.0' in (await site.get("/metrics")).text

    run(scenario, toy_engine(more=moody))


def test_openai_s_parameters_are_refused_where_no_sampler_has_them_but_at_neutral_values(moody):
    from fst_engine.local import LocalEngine
    from fst_engine.settings import LocalSettings

    from fst_core.testing.toys import toy_module

    engine = LocalEngine(LocalSettings()).for_module(toy_module(64), ToyTokenizer(), moody, 64)

    async def scenario(site):
        usual = {"prompt": "abc", "max_tokens": 2}
        neutral = {"top_p": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}}
        await site.complete(**usual, **neutral)
        for field, value in {
            "temperature": 0.5, "top_p": 0.5, "presence_penalty": 1, "top_k": 3,
        }.items():  # fmt: skip
            answer = await site.post("/v1/completions", {**usual, field: value})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)

    run(scenario, engine)


def with_template(source):
    """An engine whose model learned conversations by a template."""
    engine = toy_engine()
    chat = ChatTemplate(source)
    engine._served = replace(engine._served, chat=chat, prompts=Prompts(ToyTokenizer(), chat))
    return engine


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
    ids=["loops", "a huge string", "the inside of Python", "recursion"],
)
def test_a_hostile_template_harms_its_own_request_alone(source):
    async def scenario(site):
        chatting = asyncio.create_task(site.post(CHAT, {"messages": HI, "max_tokens": 2}))
        longest = 0.0
        while not chatting.done():
            since = time.monotonic()
            await site.complete(prompt="abc", max_tokens=2)
            longest = max(longest, time.monotonic() - since)
        answer = await chatting
        assert answer.status_code == 500
        assert "request id" in answer.json()["error"]["message"]
        assert longest < 3
        assert (await site.get("/readyz")).status_code == 200

    run(scenario, with_template(source))


def test_a_template_of_a_request_is_refused():
    async def scenario(site):
        for fields in ({"chat_template": "{{ 1 }}"}, {"chat_template_kwargs": {"a": 1}}):
            for path, body in ((CHAT, {"messages": HI}), ("/tokenize", {"messages": HI})):
                answer = await site.post(path, {**body, **fields})
                assert answer.status_code == 400
                assert answer.json()["error"]["param"] == next(iter(fields))

    run(scenario, toy_engine())


def remote(site, **settings):
    """The engine `remote`, which asks this server."""
    standard = StandardSettings()
    engine = RemoteEngine(validate(RemoteSettings, {"url": f"{site.frontend.url}/v1", **settings}))
    return engine, [(StandardSampler(standard), standard)]


def test_fst_serves_fst():
    local = toy_engine()

    async def scenario(site):
        asked, samplers = remote(site)
        engine = await asyncio.to_thread(asked.for_artefact, None, samplers)
        assert engine.describe()["context_length"] == 64
        assert engine.describe()["chat"] == "default"
        conversation = (Message("user", "hi"),)
        for request in (
            Request("abc", 9, seed=4),
            Request((2, 97, 98), 9, seed=5, stop=("q",)),
            Request(conversation, 9, seed=6),
            Request("abc", 9, parameters={"temperature": 0.0, "top_k": 5}),
            Request("abc", 9, seed=-3, min_new_tokens=9, stop_ids=(100,)),
            Request("abc", 9, seed=4, logprobs=5),
            Request(conversation, 9, seed=6, logprobs=20),
        ):
            there, here = await engine.generate(request), await local.generate(request)
            assert there.text == here.text
            assert there.finish_reason == here.finish_reason
            assert there.prompt_tokens == here.prompt_tokens
            assert there.ids == here.ids
            assert there.logprobs == here.logprobs
        for prompt in ("abc", conversation):
            assert await engine.encode(prompt) == await local.encode(prompt)
        assert await engine.decode((97, 98)) == "ab"
        with pytest.raises(UserError, match="shorten"):
            await engine.generate(Request("a" * 500))
        # And a server before this one passes on what it is asked.
        async with serving(engine) as before:
            again = await before.complete(prompt="abc", max_tokens=9, seed=4)
            assert (
                again["choices"][0]["text"]
                == (await local.generate(Request("abc", 9, seed=4))).text
            )
            fields = {"prompt": "abc", "max_tokens": 9, "seed": 4, "logprobs": 3}
            passed, here = await before.complete(**fields), await site.complete(**fields)
            assert passed["choices"] == here["choices"]
            many = await before.post(CHAT, {"messages": HI, "logprobs": True, "top_logprobs": 21})
            assert (many.status_code, many.json()["error"]["param"]) == (400, "top_logprobs")
        await engine.close()

    run(scenario, local)


def test_a_full_server_is_busy_to_the_server_before_it():
    local = Slow(0.02)

    async def scenario(site):
        asked, _ = remote(site)
        engine = await asyncio.to_thread(asked.for_artefact, None, ())
        running = asyncio.create_task(site.complete(prompt="a", max_tokens=50))
        await until(lambda: local.running)
        with pytest.raises(EngineBusy, match="full"):
            await engine.generate(Request("abc", 2))
        await running
        await engine.close()

    run(scenario, local, max_running=1, max_waiting=0)


def test_no_field_of_a_request_makes_the_server_ask_elsewhere(monkeypatch):
    asked = []

    def hook(event, arguments):
        if event == "socket.connect" and watching and arguments[1][1] != port:
            asked.append(arguments[1])
        if event == "socket.getaddrinfo" and watching and arguments[0] not in {"127.0.0.1", None}:
            asked.append(arguments[0])

    watching, port = False, 0
    sys.addaudithook(hook)

    async def scenario(site):
        nonlocal watching, port
        watching, port = True, site.port
        for url in (
            "http://169.254.169.254/latest",
            "file:///etc/passwd",
            "![](http://10.0.0.1/x)",
        ):
            await site.complete(prompt=url[:30], max_tokens=2)
            await site.post(
                CHAT, {"messages": [{"role": "user", "content": url[:30]}], "max_tokens": 1}
            )
            part = {"type": "image_url", "image_url": {"url": url}}
            body = {"messages": [{"role": "user", "content": [part]}]}
            assert (await site.post(CHAT, body)).status_code == 400
        watching = False

    run(scenario, toy_engine())
    assert asked == []


def test_an_engine_without_a_tokenizer_is_refused_by_name():
    class Bare(Slow):
        async def encode(self, prompt):
            raise UnsupportedParameter("prompt", "this engine has no tokenizer")

        async def stream(self, request):
            async for chunk in super(Slow, self).stream(replace(request, prompt="abc")):
                yield chunk

    async def scenario(site):
        answer = await site.post("/tokenize", {"prompt": "abc"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")

    run(scenario, Bare())
