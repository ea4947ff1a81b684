"""The clients that people have: each works with the server as it works with OpenAI's own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
import warnings
from typing import get_args, get_type_hints

import openai
import pytest
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionUserMessageParam,
)
from serving import CONTEXT, KEY, ScriptedEngine, Server, toy_engine, until

SAID = [{"role": "user", "content": "Who is there?"}]


@pytest.fixture(scope="module")
def server():
    with Server(toy_engine()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    """OpenAI's client, which refuses an answer that is not what its types say."""
    with openai.OpenAI(
        base_url=server.url, api_key="none", _strict_response_validation=True, max_retries=0
    ) as made:
        yield made


@pytest.fixture(scope="module")
def lenient(server):
    """The same for answers that its types do not know: where OpenAI's own server says null too."""
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


# ---- openai


def test_models_are_listed_and_found(client):
    [model] = client.models.list()
    assert model.id == "fst"
    assert client.models.retrieve("fst") == model
    assert model.model_dump()["max_model_len"] == CONTEXT
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("gpt-4/mini")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


def test_a_completion_is_what_the_engine_writes(client):
    found = client.completions.create(model="fst", prompt="abc", max_tokens=8, temperature=0)
    [choice] = found.choices
    assert len(choice.text.encode()) == 8
    assert (choice.finish_reason, choice.logprobs) == ("length", None)
    usage = found.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 8, 12)
    assert found.object == "text_completion"
    same = client.completions.create(
        model="fst",
        prompt=[256, *b"abc"],
        max_tokens=8,
        top_p=1e-9,
    )
    assert same.choices[0].text == choice.text


def test_choices_are_numbered_by_prompt_and_then_by_n(client):
    prompts = ["abc", "xyz"]
    ask = {"model": "fst", "max_tokens": 6, "seed": 3}
    found = client.completions.create(prompt=prompts, n=3, **ask)
    assert [choice.index for choice in found.choices] == list(range(6))
    for number, prompt in enumerate(prompts):
        alone = client.completions.create(prompt=prompt, n=3, **ask)
        texts = [choice.text for choice in alone.choices]
        assert [choice.text for choice in found.choices[3 * number : 3 * number + 3]] == texts
        assert len(set(texts)) == 3
    assert found.usage.completion_tokens == 36


@pytest.mark.parametrize("prompt", [[97, 98, 99], [[97, 98, 99], [97]], ["abc", "a"], "abc"])
def test_a_prompt_has_four_shapes(client, prompt):
    found = client.completions.create(model="fst", prompt=prompt, max_tokens=2, echo=True)
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    begins = ["abc", "a"] if several else ["abc"]
    assert len(found.choices) == len(begins)
    for choice, begin in zip(found.choices, begins, strict=True):
        assert choice.text.startswith(begin)
    assert found.usage.completion_tokens == 2 * len(begins)


def test_a_stream_is_the_whole_in_pieces_and_ends_with_its_usage(client, lenient):
    ask = {"model": "fst", "prompt": ["abc", "xyz"], "max_tokens": 9, "seed": 5, "n": 2}
    whole = client.completions.create(**ask)
    chunks = list(
        lenient.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    texts = [""] * 4
    reasons = [None] * 4
    for chunk in chunks[:-1]:
        assert "usage" in chunk.model_fields_set
        assert chunk.usage is None
        for choice in chunk.choices:
            assert reasons[choice.index] is None
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1


def test_a_conversation_is_answered(client):
    found = client.chat.completions.create(
        model="fst", messages=SAID, max_completion_tokens=7, seed=1
    )
    [choice] = found.choices
    assert choice.message.role == "assistant"
    assert choice.message.refusal is None
    assert choice.finish_reason == "length"
    assert found.usage.completion_tokens == 7
    assert found.system_fingerprint
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who is there?"}]}]
    same = client.chat.completions.create(model="fst", messages=parts, max_tokens=7, seed=1)
    assert same.choices[0].message == choice.message
    again = [
        *SAID,
        choice.message,
        {"role": "user", "content": "And?"},
    ]  # as the client gives it back
    assert client.chat.completions.create(model="fst", messages=again, max_tokens=2).choices


def test_a_conversation_is_streamed(client):
    ask = {"model": "fst", "messages": SAID, "max_tokens": 7, "seed": 1, "n": 2}
    whole = client.chat.completions.create(**ask)
    chunks = list(
        client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    for index, choice in enumerate(whole.choices):
        own = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert (own[0].delta.role, own[0].delta.content) == ("assistant", "")
        assert "".join(c.delta.content or "" for c in own) == choice.message.content
        assert [c.finish_reason for c in own] == [None] * (len(own) - 1) + ["length"]
        assert own[-1].delta.model_dump(exclude_none=True) == {}


def test_the_clients_own_helper_gathers_a_stream(client):
    ask = {"model": "fst", "messages": SAID, "seed": 1}
    whole = client.chat.completions.create(**ask, max_tokens=20).choices[0].message.content
    with client.chat.completions.stream(**ask, stop=whole[10]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content == whole[: whole.index(whole[10])]


def test_log_probabilities_of_a_completion(client, lenient):
    found = lenient.completions.create(
        model="fst", prompt=[256, *b"abc"], max_tokens=3, logprobs=2, echo=True, temperature=0
    )
    [choice] = found.choices
    told = choice.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == 7
    assert len(told.text_offset) == 7
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    entries = zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True)
    for token, logprob, top in list(entries)[1:]:
        assert top[token] == logprob < 0
        assert len(top) in {2, 3}
    greedy = zip(told.token_logprobs[4:], told.top_logprobs[4:], strict=True)
    assert all(logprob == max(top.values()) for logprob, top in greedy)
    without = client.completions.create(
        model="fst", prompt=[256, *b"abc"], max_tokens=3, logprobs=2, temperature=0
    )
    assert without.choices[0].logprobs.token_logprobs == told.token_logprobs[4:]


def test_log_probabilities_of_an_answer(client):
    found = client.chat.completions.create(
        model="fst", messages=SAID, max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    )
    content = found.choices[0].logprobs.content
    assert len(content) == 4
    for each in content:
        assert len(each.top_logprobs) == 3
        assert each.logprob == max(top.logprob for top in each.top_logprobs)
    streamed = client.chat.completions.create(
        model="fst",
        messages=SAID,
        max_tokens=4,
        logprobs=True,
        top_logprobs=3,
        temperature=0,
        stream=True,
    )
    told = [c.logprobs.content for chunk in streamed for c in chunk.choices if c.logprobs]
    assert [each for part in told for each in part] == content


def test_a_stop_string_ends_a_text_and_is_not_part_of_it(client, lenient):
    ask = {"model": "fst", "prompt": "abc", "seed": 2, "max_tokens": 30}
    [whole] = client.completions.create(**ask).choices
    stop = whole.text[10:12]
    [cut] = client.completions.create(**ask, stop=[stop]).choices
    assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    streamed = lenient.completions.create(**ask, stop=stop, stream=True)
    assert "".join(c.text for chunk in streamed for c in chunk.choices) == cut.text


def test_fields_of_any_sampler_are_taken(client):
    found = client.completions.create(
        model="fst", prompt="abc", max_tokens=5, extra_body={"letter": "q", "top_k": 1}
    )
    assert found.choices[0].text == "qqqqq"
    found = client.chat.completions.create(
        model="fst", messages=SAID, max_tokens=5, extra_body={"letter": "q"}, logit_bias={"113": 1}
    )
    assert found.choices[0].message.content == "qqqqq"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": [""]}, "stop[0]"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**6]}, "prompt"),
        ({"prompt": "a" * CONTEXT}, "prompt"),
        ({"extra_body": {"letter": "qq"}}, "letter"),
        ({"extra_body": {"top_ka": 3}}, "top_ka"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(client, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "fst", "prompt": "abc", **fields})
    error = refused.value
    assert (error.status_code, error.param) == (400, param)
    assert error.type == "invalid_request_error"
    assert error.request_id
    assert error.body["message"]
    if fields == {"prompt": "a" * CONTEXT}:
        assert error.code == "context_length_exceeded"


def test_whatever_field_the_client_knows_may_be_null(lenient):
    """So a field that OpenAI adds is found, when the client comes to know it."""

    def nulls(kind):
        return dict.fromkeys(get_type_hints(kind))

    part = {**nulls(ChatCompletionContentPartTextParam), "type": "text", "text": "a"}
    messages = [
        {**nulls(kind), "role": role, "content": [part]}
        for role, kind in {
            "system": ChatCompletionSystemMessageParam,
            "developer": ChatCompletionDeveloperMessageParam,
            "user": ChatCompletionUserMessageParam,
            "assistant": ChatCompletionAssistantMessageParam,
        }.items()
    ]
    for resource, own, params in (
        (lenient.completions, {"prompt": "a"}, openai.types.CompletionCreateParams),
        (
            lenient.chat.completions,
            {"messages": messages},
            openai.types.chat.CompletionCreateParams,
        ),
    ):
        known = {name: None for kind in get_args(params) for name in get_type_hints(kind)}
        assert len(known) > 15
        body = {**known, "model": "fst", **own}
        assert resource.create(model="fst", **own, extra_body=body).choices
        body |= {"stream": True, "stream_options": nulls(ChatCompletionStreamOptionsParam)}
        assert list(resource.create(model="fst", **own, stream=True, extra_body=body))


def test_a_wrong_key_is_refused_by_the_clients_own_class(monkeypatch):
    monkeypatch.setenv("FST_TEST_KEY", KEY)
    with Server(ScriptedEngine(), key_env="FST_TEST_KEY") as server:
        for key, refused in ((KEY, False), ("not-the-key-of-this-server", True)):
            with openai.OpenAI(base_url=server.url, api_key=key) as client:
                if not refused:
                    found = client.completions.create(model="scripted", prompt="a")
                    assert found.choices[0].text == "Roses are red."
                    continue
                with pytest.raises(openai.AuthenticationError) as error:
                    client.models.list()
                assert error.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("settings", "error", "code"),
    [
        ({"max_running": 1, "max_waiting": 0}, openai.InternalServerError, "server_overloaded"),
        ({"concurrent_requests": 1}, openai.RateLimitError, "rate_limit_exceeded"),
    ],
)
def test_who_comes_too_early_waits_as_told_and_is_served(monkeypatch, settings, error, code):
    monkeypatch.setenv("FST_TEST_KEY", KEY)
    engine = ScriptedEngine(["slow "] * 15, seconds=0.1)
    with (
        Server(engine, key_env="FST_TEST_KEY", **settings) as server,
        openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=9) as client,
    ):
        first = client.completions.create(model="scripted", prompt="a", stream=True)
        until(lambda: engine.requests)
        with pytest.raises(error) as refused:
            client.with_options(max_retries=0).completions.create(model="scripted", prompt="b")
        assert refused.value.code == code
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        begun = time.monotonic()
        drained = threading.Thread(target=lambda: list(first))
        drained.start()
        assert client.completions.create(model="scripted", prompt="b").choices
        drained.join(10)
        assert time.monotonic() - begun >= int(refused.value.response.headers["retry-after"]) * 0.7


def test_a_failure_in_the_middle_of_a_stream_is_an_error():
    engine = ScriptedEngine(["one ", RuntimeError("secret words")])
    with (
        Server(engine) as server,
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        stream = client.chat.completions.create(model="scripted", messages=SAID, stream=True)
        with pytest.raises(openai.APIError) as failed:
            list(stream)
        assert "secret" not in str(failed.value)
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model="scripted", messages=SAID)
        assert "secret" not in str(failed.value)
        assert failed.value.request_id in str(failed.value)


def test_many_at_once_asynchronously(server):
    async def talk():
        async with openai.AsyncOpenAI(
            base_url=server.url, api_key="none", _strict_response_validation=True
        ) as client:
            lenient = client.copy(_extra_kwargs={"_strict_response_validation": False})
            assert [model.id async for model in client.models.list()] == ["fst"]
            ask = {"model": "fst", "max_tokens": 9, "seed": 4}

            async def streamed(prompt):
                stream = await lenient.completions.create(prompt=prompt, stream=True, **ask)
                return "".join([c.text async for chunk in stream for c in chunk.choices])

            prompts = [f"prompt {number}" for number in range(12)]
            wholes = await asyncio.gather(
                *(client.completions.create(prompt=prompt, **ask) for prompt in prompts)
            )
            streams = await asyncio.gather(*map(streamed, prompts))
            assert streams == [whole.choices[0].text for whole in wholes]
            assert len(set(streams)) > 1
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model="fst", messages=[])

    asyncio.run(talk())


def test_a_crowd_that_is_told_to_wait_is_served_in_the_end():
    engine = ScriptedEngine(["a ", "b "], seconds=0.02)

    async def talk(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=5) as client:
            ask = client.completions.create
            return await asyncio.gather(*(ask(model="scripted", prompt="a") for _ in range(12)))

    with Server(engine, max_running=2, max_waiting=4) as server:
        answers = asyncio.run(talk(server.url))
    assert [answer.choices[0].text for answer in answers] == ["a b "] * 12
    assert len(engine.requests) == 12


def test_who_leaves_a_stream_is_cancelled():
    engine = ScriptedEngine(["on "] * 5000, seconds=0.01)

    async def talk(url):
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            stream = await client.completions.create(
                model="scripted", prompt="a", max_tokens=5000, stream=True
            )
            async for _ in stream:
                break
            await stream.close()

    with Server(engine) as server:
        asyncio.run(talk(server.url))
        until(lambda: engine.cancelled == engine.requests != [])


# ---- LangChain


@pytest.fixture
def asks(server):
    """What LangChain's models are built with; their connections end with the test."""
    ask = {"base_url": server.url, "api_key": "none", "model": "fst", "seed": 1, "max_tokens": 8}
    with openai.DefaultHttpxClient() as connections:
        yield {**ask, "http_client": connections, "max_retries": 0}


def test_langchain_talks(asks, client):
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI

    async def asynchronously():
        async with openai.DefaultAsyncHttpxClient() as connections:
            chat = ChatOpenAI(**asks, http_async_client=connections)
            return await chat.ainvoke("Who is there?")

    chat = ChatOpenAI(**asks)
    direct = client.chat.completions.create(model="fst", messages=SAID, seed=1, max_tokens=8)
    answer = chat.invoke("Who is there?")
    assert answer.content == direct.choices[0].message.content
    assert answer.usage_metadata["output_tokens"] == 8
    assert answer.response_metadata["finish_reason"] == "length"
    pieces = list(ChatOpenAI(**asks, stream_usage=True).stream("Who is there?"))
    assert "".join(piece.content for piece in pieces) == answer.content
    assert sum((p.usage_metadata or {}).get("output_tokens", 0) for p in pieces) == 8
    assert [each.content for each in chat.batch(["Who is there?"] * 5)] == [answer.content] * 5
    assert asyncio.run(asynchronously()).content == answer.content
    several = ChatOpenAI(**asks, n=3).generate([[HumanMessage("Who is there?")]])
    assert len({each.text for each in several.generations[0]}) == 3


def test_langchain_continues(asks, client):
    from langchain_openai import OpenAI

    prompts = ["abc", "xyz", "def"]
    found = OpenAI(**asks, n=2, best_of=2).generate(prompts)
    direct = client.completions.create(
        model="fst", prompt=prompts, seed=1, max_tokens=8, n=2, temperature=0.7
    )  # LangChain's own temperature
    texts = [choice.text for choice in direct.choices]
    assert [each.text for group in found.generations for each in group] == texts
    alone = OpenAI(**asks)
    assert "".join(alone.stream("abc")) == alone.invoke("abc") == texts[0]


# ---- litellm


@pytest.fixture(scope="module")
def litellm():
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
        warnings.simplefilter("ignore")  # those of its import are its own
        import litellm

        litellm.telemetry = False
        yield litellm
        for kept in litellm.in_memory_llm_clients_cache.cache_dict.values():
            if isinstance(kept, openai.OpenAI):
                kept.close()


def test_litellm_talks(server, client, litellm):
    ask = {"seed": 1, "max_tokens": 8}
    direct = client.chat.completions.create(model="fst", messages=SAID, **ask)
    asks = {
        "model": "openai/fst",
        "api_base": server.url,
        "api_key": "none",
        "messages": SAID,
        **ask,
    }
    found = litellm.completion(**asks)
    assert found.choices[0].message.content == direct.choices[0].message.content
    assert found.usage.total_tokens == direct.usage.total_tokens
    chunks = list(litellm.completion(**asks, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == found.choices[0].message.content
    assert [c.usage.total_tokens for c in chunks if getattr(c, "usage", None)] == [
        direct.usage.total_tokens
    ]
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**{**asks, "messages": []})


def test_litellm_continues(server, client, litellm):
    ask = {"prompt": "abc", "seed": 1, "max_tokens": 8}
    direct = client.completions.create(model="fst", **ask)
    asks = {"model": "text-completion-openai/fst", "api_base": server.url, "api_key": "none", **ask}
    found = litellm.text_completion(**asks)
    assert found.choices[0].text == direct.choices[0].text
    chunks = litellm.text_completion(**asks, stream=True)
    text = "".join(c.text or "" for chunk in chunks for c in chunk.choices)
    assert text == direct.choices[0].text


# ---- Open WebUI, whose requests are written down as it sends them

OPEN_WEBUI = [
    # A turn of a conversation.
    {
        "stream": True,
        "model": "fst",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
        ],
        "stream_options": {"include_usage": True},
    },
    # The same with every parameter of its settings that a server of OpenAI's has.
    {
        "stream": True,
        "model": "fst",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.8,
        "top_p": 0.9,
        "min_p": 0.0,
        "max_tokens": 8,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "seed": 7,
        "stop": ["\\n"],
        "logit_bias": {"65": 5},
    },
    # The title of a conversation.
    {
        "model": "fst",
        "messages": [{"role": "user", "content": "### Task: title"}],
        "stream": False,
        "max_completion_tokens": 16,
    },
    # Tags, with a model whose answers are limited the older way.
    {
        "model": "fst",
        "messages": [{"role": "user", "content": "### Task: tags"}],
        "stream": False,
        "max_tokens": 16,
    },
]


@pytest.mark.parametrize("body", OPEN_WEBUI)
def test_open_webui_is_answered(server, body):
    headers = {
        "Content-Type": "application/json",
        "Authorization": "Bearer ",
        "X-OpenWebUI-User-Name": "A%20Name",
        "X-OpenWebUI-Chat-Id": "5b0c",
    }
    address = f"{server.url}/chat/completions"
    ask = urllib.request.Request(address, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(ask, timeout=30) as answer:
        kind, content = answer.headers["content-type"], answer.read().decode()
    if not body["stream"]:
        [choice] = json.loads(content)["choices"]
        assert choice["message"]["content"]
        return
    assert kind.startswith("text/event-stream")
    *events, end, rest = content.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    told = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(c["delta"].get("content", "") for each in told for c in each["choices"])
    assert all("error" not in each for each in told)


def test_open_webui_finds_the_model(server):
    ask = urllib.request.Request(f"{server.url}/models", headers={"Authorization": "Bearer "})
    with urllib.request.urlopen(ask, timeout=30) as answer:
        listed = json.load(answer)
    assert [model["id"] for model in listed["data"]] == ["fst"]
    assert "error" not in listed
    assert all(model.get("name", "") is not None for model in listed["data"])
