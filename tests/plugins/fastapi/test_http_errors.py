"""What is refused, by whom, with which status and which field (scenario S2)."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import time

import httpx
import pytest
from fst_fastapi.errors import as_api_error
from serving import LetterSampler, LetterSettings, Server
from wire import Slow, run, toy_engine, until

from fst_core.errors import EngineBusy
from fst_core.testing.toys import ToyTokenizer

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
DEEP = '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}"
TABLE = '{"prompt": "a", "look": %s}'
BIASES = json.dumps({str(i): 1 for i in range(10**5)}, separators=(",", ":"))
HI = [{"role": "user", "content": "hi"}]


def image(url):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def named(*names):
    return [{"role": "user", "content": "hi", "name": name} for name in names]


ROWS = [
    # what, the body, the field that is wrong
    ("n of a milliard", {"n": 10**9}, "n"),
    ("n of zero", {"n": 0}, "n"),
    ("n as a string", {"n": "2"}, "n"),
    ("n as a fraction", {"n": 1.5}, "n"),
    ("n as true", {"n": True}, "n"),
    ("n above the limit", {"n": 9}, "n"),
    ("prompts times n", {"prompt": ["a"] * 8, "n": 5}, "n"),
    ("too many prompts", {"prompt": ["a"] * 33}, "prompt"),
    ("best_of of a million", {"best_of": 10**6}, "best_of"),
    ("best_of that is not n", {"n": 2, "best_of": 3}, "best_of"),
    ("max_tokens of zero", {"max_tokens": 0}, "max_tokens"),
    ("max_tokens below zero", {"max_tokens": -1}, "max_tokens"),
    ("max_tokens of a billion", {"max_tokens": 10**12}, "max_tokens"),
    ("max_tokens as a float", {"max_tokens": 1e12}, "max_tokens"),
    ("min_tokens above max_tokens", {"min_tokens": 20, "max_tokens": 3}, "min_tokens"),
    ("min_tokens without room", {"min_tokens": 63, "max_tokens": 99}, "min_tokens"),
    ("min_tokens below zero", {"min_tokens": -1}, "min_tokens"),
    ("temperature NaN", '{"prompt": "a", "temperature": NaN}', "temperature"),
    ("temperature Infinity", '{"prompt": "a", "temperature": Infinity}', "temperature"),
    ("temperature 1e400", '{"prompt": "a", "temperature": 1e400}', "temperature"),
    ("temperature below zero", {"temperature": -1}, "temperature"),
    ("temperature as a string", {"temperature": "hot"}, "temperature"),
    ("temperature as a list", {"temperature": [1]}, "temperature"),
    ("top_p of zero", {"top_p": 0}, "top_p"),
    ("top_p of two", {"top_p": 2}, "top_p"),
    ("top_k below zero", {"top_k": -5}, "top_k"),
    ("repetition_penalty of zero", {"repetition_penalty": 0}, "repetition_penalty"),
    ("presence_penalty of three", {"presence_penalty": 3}, "presence_penalty"),
    ("frequency_penalty of -1e9", {"frequency_penalty": -1e9}, "frequency_penalty"),
    ("logprobs of a million", {"logprobs": 10**6}, "logprobs"),
    ("logprobs below zero", {"logprobs": -1}, "logprobs"),
    ("logprobs of a completion as true", {"logprobs": True}, "logprobs"),
    ("logit_bias of 1e5 keys", '{"prompt":"a","logit_bias":' + BIASES + "}", "logit_bias"),
    ("logit_bias of a word", {"logit_bias": {"word": 1}}, "logit_bias"),
    ("logit_bias of an unknown id", {"logit_bias": {"99999": 1}}, "logit_bias"),
    ("logit_bias of a negative id", {"logit_bias": {"-1": 1}}, "logit_bias"),
    ("logit_bias of 1e308", {"logit_bias": {"97": 1e308}}, "logit_bias.97"),
    ("logit_bias as a list", {"logit_bias": [1]}, "logit_bias"),
    ("stop of 1e5 strings", {"stop": ["x"] * 10**5}, "stop"),
    ("stop of an empty string", {"stop": ""}, "stop"),
    ("stop with an empty string", {"stop": ["a", ""]}, "stop[1]"),
    ("stop of 500 kB", {"stop": "x" * 500_000}, "stop"),
    ("stop of numbers", {"stop": [1]}, "stop[0]"),
    ("stop_token_ids below zero", {"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ("stop_token_ids out of the vocabulary", {"stop_token_ids": [10**6]}, "stop_token_ids"),
    ("seed of 70 bits", {"seed": 2**70}, "seed"),
    ("seed as a fraction", {"seed": 0.5}, "seed"),
    ("no prompt", "{}", "prompt"),
    ("prompt of null", {"prompt": None}, "prompt"),
    ("prompt of a number", {"prompt": 5}, "prompt"),
    ("an empty list of prompts", {"prompt": []}, "prompt"),
    ("an empty prompt of ids", {"prompt": [[]]}, "prompt[0]"),
    ("a negative id", {"prompt": [-1]}, "prompt[0]"),
    ("an id out of the vocabulary", {"prompt": [10**6]}, "prompt"),
    ("the first id that there is not", {"prompt": [ToyTokenizer().vocab_size]}, "prompt"),
    ("an id of 40 bits", {"prompt": [2**40]}, "prompt[0]"),
    ("shapes mixed", {"prompt": ["a", 1]}, "prompt[1]"),
    ("shapes mixed otherwise", {"prompt": [1, "a"]}, "prompt[1]"),
    ("ids mixed with lists", {"prompt": [[1], 2]}, "prompt[1]"),
    ("an id that is true", {"prompt": [1, True]}, "prompt[1]"),
    ("half a character", '{"prompt": "a\\ud800"}', "prompt"),
    ("half a character in a list", '{"prompt": ["a", "\\udfff"]}', "prompt[1]"),
    ("NUL", {"prompt": "a\0b"}, "prompt"),
    ("a prompt without room", {"prompt": "a" * 500}, "prompt"),
    ("depth of 1e5", DEEP, None),
    ("an integer of 1e5 digits", '{"prompt": "a", "seed": ' + "9" * 10**5 + "}", None),
    ("a key twice", '{"prompt": "a", "prompt": "b"}', "prompt"),
    ("not an object", "[1, 2]", None),
    ("not JSON", "prompt=a", None),
    ("nothing", "", None),
    ("not UTF-8", b'{"prompt": "\xff"}', None),
    ("UTF-16", '{"prompt": "a"}'.encode("utf-16"), None),
    ("priority", {"priority": 1}, "priority"),
    ("rid", {"rid": "someone-elses"}, "rid"),
    ("n_discard", {"n_discard": -1}, "n_discard"),
    ("an unknown field of half a character", '{"prompt": "a", "\\ud800": 1}', "?"),
    ("suffix", {"suffix": "end"}, "suffix"),
    ("store", {"store": True}, "store"),
    ("ignore_eos", {"ignore_eos": True}, "ignore_eos"),
    ("response_format", {"response_format": {"type": "json_object"}}, "response_format"),
    ("stream as a string", {"stream": "yes"}, "stream"),
    ("stream_options alone", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("stream_options unknown", {"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
    ("echo as a string", {"echo": "yes"}, "echo"),
    ("model of a number", {"model": 1}, "model"),
    ("a sampler's unknown field", {"temprature": 1}, "temprature"),
    ("half a character in a table", TABLE % '{"a": ["\\udfff"]}', "look.a"),
    ("half a character as a table's key", TABLE % '{"\\ud800": 1}', "look"),
    (
        "half a character as a key of numbers",
        '{"prompt": "a", "logit_bias": {"\\ud800": 1}}',
        "logit_bias",
    ),
    (
        "half a character as an unknown key",
        '{"prompt": "a", "stream": true, "stream_options": {"\\ud800": 1}}',
        "stream_options",
    ),
    ("an infinite number in a table", TABLE % '{"a": {"b": 1e400}}', "look.a"),
    ("a table that pydantic does not read", TABLE % ('{"a":' * 300 + "1" + "}" * 300), "look.a"),
    ("a table that Python does not write", TABLE % ('{"a":' * 900 + "1" + "}" * 900), "look.a"),
    ("ignored_words of an empty word", {"ignored_words": [""]}, "ignored_words[0]"),
]
CHATS = [
    ("no messages", "{}", "messages"),
    ("messages of none", {"messages": []}, "messages"),
    ("a message of nothing", {"messages": [{}]}, "messages[0].role"),
    ("an unknown role", {"messages": [{"role": "god", "content": ""}]}, "messages[0].role"),
    ("a tool's message", {"messages": [{"role": "tool", "content": ""}]}, "messages[0].role"),
    ("no content", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("an image", {"messages": image("http://169.254.169.254/")}, "messages[0].content[0].type"),
    ("a file", {"messages": image("file:///etc/passwd")}, "messages[0].content[0].type"),
    ("tools", {"tools": [{"type": "function"}]}, "tools"),
    ("tool_choice", {"tool_choice": "required"}, "tool_choice"),
    ("a template", {"chat_template": "{{ 1 }}"}, "chat_template"),
    ("a template's arguments", {"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs"),
    ("a search", {"web_search_options": {}}, "web_search_options"),
    ("a voice", {"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ("answers that are heard", {"modalities": ["text", "audio"]}, "modalities"),
    ("a draft", {"prediction": {"type": "content", "content": "a"}}, "prediction"),
    ("thinking", {"reasoning_effort": "high"}, "reasoning_effort"),
    ("long answers", {"verbosity": "high"}, "verbosity"),
    ("a judge", {"moderation": {}}, "moderation"),
    ("what the cache keeps", {"prompt_cache_options": {"ttl": "30m"}}, "prompt_cache_options"),
    ("how long the cache keeps", {"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ("two users", {"messages": named("Anna", "Boris")}, "messages[1].name"),
    ("a user with a name and one without", {"messages": named("Anna", None)}, "messages[1].name"),
    ("a name of nothing", {"messages": named("")}, "messages[0].name"),
    ("a name of 65 characters", {"messages": named("a" * 65)}, "messages[0].name"),
    ("top_logprobs alone", {"top_logprobs": 3}, "top_logprobs"),
    ("top_logprobs of 21", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("logprobs of a chat as a number", {"logprobs": 3}, "logprobs"),
    ("echo", {"echo": True}, "echo"),
    ("max_completion_tokens of zero", {"max_completion_tokens": 0}, "max_completion_tokens"),
    ("a conversation without room", {"messages": [{"role": "user", "content": "a" * 500}]}, "messages"),
    ("half a character", '{"messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server():
    letter = LetterSettings()
    with Server(toy_engine(more=[(LetterSampler(letter), letter)])) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.root, trust_env=False, timeout=30) as made:
        yield made


def written(body, **usual):
    """Return a body as it is sent, with what is usual where it is a table."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps({**usual, **body}).encode()


def error_of(answer):
    """Return the error of an answer, which has OpenAI's shape."""
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert answer.headers["x-request-id"]
    return error


@pytest.mark.parametrize(("what", "body", "param"), ROWS, ids=[row[0] for row in ROWS])
def test_a_wrong_completion_is_refused_by_its_field(client, what, body, param):
    refused(client, COMPLETIONS, written(body, prompt="a"), param)


def test_what_is_longer_than_a_body_may_be_is_refused_unread(client):
    answer = client.post(COMPLETIONS, json={"prompt": "a", "stop": "x" * 2**20})
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "request_too_large"


@pytest.mark.parametrize(("what", "body", "param"), CHATS, ids=[row[0] for row in CHATS])
def test_a_wrong_chat_is_refused_by_its_field(client, what, body, param):
    refused(client, CHAT, written(body, messages=HI), param)


def refused(client, path, content, param):
    since = time.monotonic()
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    assert time.monotonic() - since < 2.5  # 250 ms, on a machine that ten share
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    canary = client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 1})
    assert canary.status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "somebody", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
        {"n": 2, "best_of": 2},
        {"response_format": {"type": "text"}},
        {"suffix": None, "stop": None, "logprobs": None, "seed": None, "temperature": None},
        {"logit_bias": {}, "presence_penalty": 0, "ignore_eos": False, "stream_options": None},
        {"add_special_tokens": True, "skip_special_tokens": True, "prompt_cache_key": "x"},
    ],
)
def test_what_is_known_and_harmless_is_accepted(client, fields):
    answer = client.post(COMPLETIONS, json={"prompt": "a", "max_tokens": 2, **fields})
    assert answer.status_code == 200, answer.text


def test_a_chat_takes_what_is_harmless_there(client):
    fields = {
        "tools": [], "tool_choice": "none", "parallel_tool_calls": False, "modalities": ["text"],
        "functions": None, "response_format": {"type": "text"}, "chat_template_kwargs": {},
    }  # fmt: skip
    answer = client.post(CHAT, json={"messages": HI, "max_tokens": 2, **fields})
    assert answer.status_code == 200, answer.text
    turn = answer.json()["choices"][0]["message"]
    again = [*HI, {**turn, "tool_calls": None, "annotations": []}, *HI]
    answer = client.post(CHAT, json={"messages": again, "max_tokens": 2})
    assert answer.status_code == 200, answer.text


def test_a_name_that_tells_nobody_apart_is_accepted(client):
    plain = [{"role": role, "content": "hi"} for role in ("system", "user", "assistant", "user")]
    names = {"system": None, "user": "Anna", "assistant": "Boris"}
    answers = [
        client.post(CHAT, json={"messages": messages, "max_tokens": 9, "seed": 1})
        for messages in (plain, [{**each, "name": names[each["role"]]} for each in plain])
    ]
    assert answers[0].status_code == 200
    assert answers[0].json()["choices"] == answers[1].json()["choices"]
    assert answers[0].json()["usage"] == answers[1].json()["usage"]


def test_what_says_what_is_done_anyway_is_accepted(client):
    fields = {
        "reasoning_effort": "none",
        "verbosity": "medium",
        "prompt_cache_retention": "in_memory",
    }
    answer = client.post(CHAT, json={"messages": HI, "max_tokens": 2, **fields})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize"])
def test_null_is_the_same_as_leaving_a_field_out(client, path):
    """Whatever field: the endpoint's own, a sampler's, one that is only known."""
    body = {"messages": HI, "seed": 1} if path == CHAT else {"prompt": "a"}
    body |= {"seed": 1} if path == COMPLETIONS else {}
    document = client.get("/openapi.json").json()["paths"][path]["post"]
    said = document["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert len(said) > 5
    nulls = dict.fromkeys(said.keys() - body.keys())
    without, with_ = (client.post(path, json=each) for each in (body, {**nulls, **body}))
    assert with_.status_code == without.status_code == 200, with_.text
    for name in ("choices", "usage", "tokens"):
        assert with_.json().get(name) == without.json().get(name)


def test_an_unknown_model_is_not_found(client):
    for answer in (
        client.post(COMPLETIONS, json={"model": "gpt-4", "prompt": "a"}),
        client.get("/v1/models/some/gpt-4"),
    ):
        assert answer.status_code == 404
        assert error_of(answer)["code"] == "model_not_found"


def test_unknown_paths_and_methods_are_told_in_the_same_shape(client):
    assert error_of(client.get("/v1/nothing"))["code"] == "not_found"
    answer = client.get(COMPLETIONS)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert error_of(answer)["code"] == "method_not_allowed"


def test_probes_may_ask_for_the_head_alone(server):
    """As load balancers do: what follows the head would be taken for the next answer."""
    host, _, port = server.root.removeprefix("http://").partition(":")
    for path in ("/healthz", "/readyz", "/"):
        with socket.create_connection((host, int(port)), timeout=30) as probe:
            asked = f"{path} HTTP/1.1\r\nhost: localhost\r\n"
            probe.sendall(f"HEAD {asked}\r\nGET {asked}connection: close\r\n\r\n".encode())
            said = b"".join(iter(lambda: probe.recv(1 << 16), b""))
        head, second, body = said.split(b"\r\n\r\n", 2)
        for answer in (head, second):
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), path
        length = b"\r\ncontent-length: %d\r\n" % len(body)
        assert length in head + b"\r\n"
        assert length in second + b"\r\n"


def test_the_context_s_length_has_its_own_code(client):
    answer = client.post(COMPLETIONS, json={"prompt": "a" * 500})
    assert error_of(answer)["code"] == "context_length_exceeded"


def test_another_type_of_body_is_refused(client):
    answer = client.post(COMPLETIONS, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    error_of(answer)


def test_wrong_requests_keep_no_stream_waiting():
    engine = Slow(0.01)

    async def scenario(site):
        arrived = []

        async def canary():
            body = {"prompt": "a", "max_tokens": 4000, "stream": True}
            reader, writer = await site.raw(body=body)
            try:
                while True:
                    await reader.readuntil(b"\n\n")
                    arrived.append(time.monotonic())
            finally:
                writer.close()

        streaming = asyncio.create_task(canary())
        await until(lambda: len(arrived) > 20)
        for _, body, _ in ROWS:
            content = written(body, prompt="a")
            headers = {"content-type": "application/json"}
            await site.client.post(COMPLETIONS, content=content, headers=headers)
        assert not streaming.done()
        streaming.cancel()
        await asyncio.wait([streaming])
        gaps = [after - before for before, after in itertools.pairwise(arrived)]
        assert max(gaps) < 1.5  # twice what it is without them, on a machine that ten share

    run(scenario, engine)


def test_an_error_of_the_engine_has_the_field_s_name_in_the_client_s_words(client):
    body = {"prompt": "a", "min_tokens": 63, "max_tokens": 99}
    message = error_of(client.post(COMPLETIONS, json=body))["message"]
    assert message == "min_tokens = 63: should be from 0 to 62, the room that the prompt leaves"


def test_a_busy_engine_says_when_to_come_again():
    told = [as_api_error(EngineBusy("full", wait), "id") for wait in (None, 7.2, 1000)]
    assert [error.status for error in told] == [503] * 3
    assert [error.headers["retry-after"] for error in told] == ["5", "8", "60"]
