"""The engine `remote`, against a small server of OpenAI's interface, over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing, suppress

import httpx
import pytest
from fst_engine.remote import _refusal

from fst_core import Message, Request
from fst_core.errors import EngineBusy, FstError, PromptTooLong, UnsupportedParameter, UserError
from fst_core.pipeline.target import find_target
from fst_core.plugins import registry
from fst_core.settings import validate
from fst_core.testing import EngineContract
from fst_core.testing.toys import ToySampler, ToySamplerSettings, ToyTokenizer, toy_module

KNOWN = {
    "model", "prompt", "messages", "max_tokens", "seed", "stop", "stream", "stream_options",
    "stop_token_ids", "min_tokens", "return_token_ids", "logprobs", "top_logprobs",
    "return_tokens_as_token_ids",
}  # fmt: skip


class Server:
    """Serves an engine by `/v1/completions` and `/v1/chat/completions`, in a thread of its own."""

    def __init__(self, engine=None, answer=None):
        self.engine, self.answer, self.asked = engine, answer, []
        self.loop = asyncio.new_event_loop()
        started = threading.Event()

        async def serve():
            self.stopping = asyncio.Event()
            self.server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
            started.set()
            await self.stopping.wait()
            self.server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(serve()))
        self.thread.start()
        started.wait(5)

    def stop(self):
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(5)
        self.loop.close()

    async def connected(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *headers = head.decode().strip().split("\r\n")
                fields = dict(h.lower().split(": ", 1) for h in headers)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                path = line.split(" ")[1]
                self.asked.append((path, fields, json.loads(body or b"null")))
                await self.respond(path, json.loads(body or b"null"), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def respond(self, path, body, reader, writer):
        if path == "/v1/models":
            data = [{"id": "toy", "max_model_len": 64}, {"id": "other"}]
            self.whole(writer, 200, {"data": data})
        elif self.answer is not None:
            self.whole(writer, *self.answer)
        elif path.endswith("tokenize"):
            tokenizer = ToyTokenizer()
            if path == "/tokenize":
                self.whole(writer, 200, {"tokens": tokenizer.encode_prompt(body["prompt"])})
            else:
                self.whole(writer, 200, {"prompt": tokenizer.decode(body["tokens"])})
        else:
            answering = asyncio.create_task(self.stream(body, writer))
            gone = asyncio.create_task(reader.read(1))  # nothing comes but the end
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            for task in (answering, gone):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            raise ConnectionError  # a stream ends with its connection

    def whole(self, writer, status, said):
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
        writer.write(head.encode())
        writer.write(content)

    async def stream(self, body, writer):
        chat = "messages" in body
        prompt = body.get("prompt")
        if chat:
            prompt = tuple(Message(**message) for message in body["messages"])
        request = Request(
            tuple(prompt) if isinstance(prompt, list) else prompt,
            max_new_tokens=body.get("max_tokens"),
            seed=body["seed"],
            stop=tuple(body.get("stop", ())),
            parameters={name: value for name, value in body.items() if name not in KNOWN},
            stop_ids=tuple(body.get("stop_token_ids", ())),
            min_new_tokens=body.get("min_tokens", 0),
            logprobs=body.get("top_logprobs", 0) if chat else body.get("logprobs"),
        )
        began, prompt_tokens = False, 0
        try:
            async with aclosing(self.engine.stream(request)) as chunks:
                async for chunk in chunks:
                    if not began:
                        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n: hello\n\n")
                        began, prompt_tokens = True, chunk.prompt_tokens
                    text = {"delta": {"content": chunk.text}} if chat else {"text": chunk.text}
                    self.event(writer, choices=[{
                        **text, "token_ids": chunk.ids, "finish_reason": chunk.finish_reason,
                        "logprobs": told(chunk.logprobs or (), chat=chat),
                    }])  # fmt: skip
                    await writer.drain()
            self.event(writer, choices=[], usage={"prompt_tokens": prompt_tokens})
            writer.write(b"data: [DONE]\n\n")
        except FstError as error:
            said = {"error": {"message": str(error)}}
            if began:
                self.event(writer, **said)
            else:
                self.whole(writer, 400 if isinstance(error, UserError) else 500, said)

    def event(self, writer, **fields):
        writer.write(f"data: {json.dumps(fields)}\n\n".encode())


def told(logprobs, *, chat):
    """Log probabilities as the two interfaces tell them: the chosen id comes first, as vLLM has it."""
    tables = [
        {f"token_id:{i}": logprob for i, logprob in ((each.id, each.logprob), *each.top)}
        for each in logprobs
    ]
    if not chat:
        return {"token_logprobs": [each.logprob for each in logprobs], "top_logprobs": tables}
    return {
        "content": [
            {
                "token": "?",
                "logprob": each.logprob,
                "top_logprobs": [
                    {"token": name, "logprob": logprob}
                    for name, logprob in list(table.items())[: len(each.top)]
                ],
            }
            for each, table in zip(logprobs, tables, strict=True)
        ]
    }


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def servers():
    running = []
    yield running
    for server in running:
        server.stop()


def remote(url, samplers=(), **settings):
    offer = registry().find("engine", "remote")
    engine = offer.build(validate(offer.settings_class(), {"url": url, **settings}))
    return engine.for_artefact(None, samplers)


def toy_sampler():
    settings = ToySamplerSettings()
    return [(ToySampler(settings), settings)]


def local_over(module, context_length=64, supports_cache=True):
    offer = registry().find("engine", "local")
    engine = offer.build(validate(offer.settings_class(), {}))
    return engine.for_module(
        module, ToyTokenizer(), toy_sampler(), context_length, supports_cache=supports_cache
    )


class TestRemote(EngineContract):
    use = "remote"
    settings = {"url": "http://127.0.0.1:9/v1"}

    @pytest.fixture(autouse=True)
    def _servers(self, servers):
        self.servers = servers

    def over(self, module, *, context_length, supports_cache):
        self.servers.append(Server(local_over(module, context_length, supports_cache)))
        return remote(self.servers[-1].url, toy_sampler())


def asked(servers, request, samplers=(), answer=None, **settings):
    """Ask once; return the result and what the server read."""
    servers.append(Server(local_over(toy_module(64)), answer))

    async def ask():
        engine = remote(servers[-1].url, samplers, **settings)
        try:
            return await engine.generate(request)
        finally:
            await engine.close()

    return asyncio.run(ask()), servers[-1].asked


def test_log_probabilities_of_a_conversation_come_with_their_ids(servers):
    request = Request((Message("user", "Hi"),), max_new_tokens=5, seed=3, logprobs=0)
    found, requests = asked(servers, request, toy_sampler())
    assert requests[-1][2]["logprobs"] is True
    assert found == asyncio.run(local_over(toy_module(64)).generate(request))
    assert [each.id for each in found.logprobs] == list(found.ids)


@pytest.mark.parametrize("prompt", ["Hi", (Message("user", "Hi"),)], ids=["a text", "a turn"])
@pytest.mark.parametrize("top", [1, 3, 20])
def test_the_likeliest_ids_are_taken_over(servers, prompt, top):
    """Whether the chosen id is one of them or not."""
    request = Request(prompt, max_new_tokens=12, seed=3, logprobs=top)
    found, _ = asked(servers, request, toy_sampler())
    assert found == asyncio.run(local_over(toy_module(64)).generate(request))
    among = [each.id in dict(each.top) for each in found.logprobs]
    assert any(among) if top > 1 else not all(among)


def scored(tops):
    """A choice of one id, with what is likely instead."""
    return {"text": "a", "token_ids": [97], "logprobs": {"token_logprobs": [-1.0], **tops}}


@pytest.mark.parametrize(
    ("choice", "top"),
    [
        ({"text": "a"}, 0),
        ({"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}, 0),
        ({"text": "a", "token_ids": [97]}, 0),
        ({"text": "a", "token_ids": [97, 98], "logprobs": {"token_logprobs": [-1.0]}}, 0),
        (scored({}), 1),
        (scored({"top_logprobs": [{"a": -1.0}]}), 1),
        (scored({"top_logprobs": [{"token_id:97": -1.0, "token_id:": -2.0}]}), 2),
    ],
)
def test_log_probabilities_of_ids_that_the_server_does_not_say_are_refused(servers, choice, top):
    answer = (200, b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    with pytest.raises(UnsupportedParameter, match="of which ids") as raised:
        asked(servers, Request("a", logprobs=top), answer=answer)
    assert raised.value.parameter == "logprobs"


def standard(**parameters):
    offer = registry().find("sampler", "standard")
    settings = validate(offer.settings_class(), parameters)
    return [(offer.build(settings), settings)]


def test_a_conversation_is_asked_as_one(servers):
    turns = (Message("system", "Be kind."), Message("user", "Hi"))
    request = Request(turns, max_new_tokens=5, seed=3, parameters={"greedy": True})
    found, requests = asked(servers, request, toy_sampler())
    path, _, body = requests[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]
    assert "prompt" not in body
    assert found == asyncio.run(local_over(toy_module(64)).generate(request))


def test_parameters_go_under_their_names_and_usual_values_unsaid(servers):
    request = Request("a", max_new_tokens=2, stop_ids=(5,), min_new_tokens=1, stop=("x",))
    samplers = standard(top_k=7, temperature=1.0)
    with pytest.raises(
        UserError, match="no sampler has this parameter"
    ):  # the toy's server's words
        asked(servers, request, samplers)
    _, _, body = servers[-1].asked[-1]
    assert {name: body[name] for name in ("top_k", "temperature", "top_p", "min_tokens")} == {
        "top_k": 7, "temperature": 1.0, "top_p": 1.0, "min_tokens": 1,
    }  # fmt: skip
    assert (body["stop"], body["stop_token_ids"]) == (["x"], [5])
    assert "min_p" not in body
    assert "ignored_words" not in body


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request("a", logprobs=0), "logprobs"),
        (Request("a", logprobs=1), "logprobs"),
        (Request("a", prompt_logprobs=1), "prompt_logprobs"),
        (Request("a", meta="x"), "meta"),
        (Request("a", stop_ids=(5,)), "stop_ids"),
        (Request("a", min_new_tokens=5), "min_new_tokens"),
        (Request("a", parameters={"top_k": 5}), "top_k"),
    ],
)
def test_what_the_server_has_no_word_for_is_refused_by_its_name(servers, request_, name):
    with pytest.raises(UnsupportedParameter) as raised:
        asked(servers, request_, standard(), extensions=False)
    assert raised.value.parameter == name


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (429, EngineBusy, "the server is busy: so it is"),
        (503, EngineBusy, "the server is busy"),
        (400, UserError, "^so it is$"),
        (401, FstError, "refuses the key of key_env"),
        (500, FstError, "the server failed: so it is"),
    ],
)
def test_refusals_of_the_server_are_our_errors(servers, status, error, message):
    answer = (status, {"error": {"message": "so it is"}})
    with pytest.raises(error, match=message):
        asked(servers, Request("a"), answer=answer)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("Wed, 25 Nov 2026 10:00:00 GMT", None)])
def test_how_long_a_busy_server_wants_to_be_left_alone_is_passed_on(header, seconds):
    answer = httpx.Response(503, headers={"retry-after": header}, json={})
    assert _refusal(answer).retry_after == seconds


def test_a_prompt_that_is_too_long_for_the_server_is_too_long_here():
    error = {"message": "shorter, please", "code": "context_length_exceeded"}
    refused = _refusal(httpx.Response(400, json={"error": error}))
    assert (type(refused), str(refused)) == (PromptTooLong, "shorter, please")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"data: nonsense\n\n", "no event"),
        (b"data: [1]\n\n", "no event"),
        (b"data: [DONE]\n\n", "without a reason"),
        (b'data: {"choices": [{"text": "a"}]}\n\n', "without a reason"),
        (b'data: {"error": {"message": "broken"}}\n\n', "the server failed: broken"),
        (b"<html>busy</html>", "without a reason"),
    ],
)
def test_a_stream_that_is_none_is_told(servers, content, message):
    with pytest.raises(FstError, match=message):
        asked(servers, Request("a"), answer=(200, content))


def test_the_key_is_sent_and_its_absence_told(servers, monkeypatch):
    monkeypatch.setenv("TOY_KEY", "secret")
    _, requests = asked(servers, Request("a", max_new_tokens=1), key_env="TOY_KEY")
    assert {fields["authorization"] for _, fields, _ in requests} == {"bearer secret"}
    monkeypatch.delenv("TOY_KEY")
    with pytest.raises(UserError, match="key_env: the variable TOY_KEY is not set"):
        remote(servers[-1].url, key_env="TOY_KEY")


def test_it_counts_by_the_servers_tokenizer(servers):
    servers.append(Server())

    async def count():
        engine = remote(servers[-1].url)
        ids = await engine.encode("Hi")
        assert ids == tuple(ToyTokenizer().encode_prompt("Hi"))
        assert await engine.decode(ids) == "Hi"
        assert await engine.encode((1, 2)) == (1, 2)
        servers[-1].answer = (404, {})
        with pytest.raises(UnsupportedParameter, match="no /tokenize"):
            await engine.encode("Hi")
        await engine.close()

    asyncio.run(count())


def test_a_server_that_is_not_there_or_has_no_such_model_is_told(servers):
    with pytest.raises(
        FstError,
        match=r"^http://127\.0\.0\.1:9/v1: .*\. Start the server, or set engine\.url [^\n]*$",
    ):
        remote("http://127.0.0.1:9/v1")
    servers.append(Server())
    with pytest.raises(UserError, match=r"no model .mine.\. It has: toy, other"):
        remote(servers[-1].url, model="mine")
    assert remote(servers[-1].url).describe()["context_length"] == 64
    assert remote(servers[-1].url, model="other").describe()["model"] == "other"


def test_a_server_that_went_away_is_not_alive(servers):
    server = Server()
    engine = remote(server.url)
    assert engine.describe()["alive"]
    server.stop()
    with pytest.raises(FstError, match=f"{server.url}: .*Start the server"):
        asyncio.run(engine.generate(Request("a")))
    assert not engine.describe()["alive"]


def test_a_module_in_training_is_not_served_elsewhere():
    offer = registry().find("engine", "remote")
    engine = offer.build(validate(offer.settings_class(), {"url": "http://127.0.0.1:9/v1"}))
    with pytest.raises(UserError, match="no module of its own"):
        engine.for_module(toy_module(64), ToyTokenizer(), [], 64)
    with pytest.raises(FstError, match="no server yet"):
        engine.describe()


def test_a_pipeline_without_a_model_has_it_elsewhere(servers, tmp_path):
    servers.append(Server(local_over(toy_module(64))))
    file = tmp_path / "pipeline.toml"
    file.write_text(f'[engine]\nuse = "remote"\nurl = "{servers[-1].url}"\n')

    async def generate():
        engine = find_target(file).engine()
        assert engine.describe()["model"] == "toy"
        found = await engine.generate(Request("The sun", max_new_tokens=4))
        await engine.close()
        return found

    assert len(asyncio.run(generate()).ids) == 4
