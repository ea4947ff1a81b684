"""How a server ends: told to stop, told twice, and with an engine that died (S8 and S9)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from wire import Slow, events, run, serving, until

from fst_core.errors import FstError

PLUGIN = """
import asyncio, threading
from fst_core import Chunk, Component, Engine, hookimpl
from fst_core.errors import FstError

@hookimpl
def fst_engines():
    yield Component("mortal", "mortal:Mortal", "Writes a letter now and then, and dies when asked to.")

class Mortal(Engine):
    alive, hangs = True, False
    def for_artefact(self, directory, samplers):
        return self
    def for_module(self, module, tokenizer, samplers, context_length, *, supports_cache=True):
        return self
    def describe(self):
        return {"name": "mortal", "alive": self.alive, "context_length": 10_000}
    async def stream(self, request):
        if request.prompt == "hang":
            self.alive, self.hangs = False, True
            await asyncio.sleep(3600)
        if request.prompt == "die":
            self.alive = False
        for number in range(request.max_new_tokens):
            await asyncio.sleep(0.02)
            if not self.alive and not self.hangs:
                raise FstError("the engine stopped: it died")
            yield Chunk("a", (1,), prompt_tokens=None if number else 1)
        yield Chunk(finish_reason="length")
    async def close(self):
        if self.hangs:
            await asyncio.to_thread(threading.Event().wait)
"""
METADATA = "Metadata-Version: 2.1\nName: mortal\nVersion: 1.0\n"
PIPELINE = '[engine]\nuse = "mortal"\n[[serve]]\nuse = "fastapi"\nport = {port}\n{more}\n'


class Process:
    """`fst serve` in a process of its own, over an engine that may die."""

    def __init__(self, folder, more=""):
        about = folder / "mortal-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(METADATA)
        (about / "entry_points.txt").write_text("[fst]\nmortal = mortal\n")
        (folder / "mortal.py").write_text(PLUGIN)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "pipeline.toml").write_text(PIPELINE.format(port=self.port, more=more))
        command = [sys.executable, "-c", "from fst_core.cli import main; main()", "serve"]
        self.process = subprocess.Popen(
            [*command, "pipeline.toml"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        assert self.process.poll() is None, self.process.stderr.read()
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def ended(self, seconds):
        """Wait for the end, and return the status and what was said."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(more=""):
        started.append(Process(tmp_path, more))
        deadline = time.monotonic() + 30
        while not started[-1].ready():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.communicate()


async def stream(client, prompt="a", tokens=50):
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True}
    return await client.post("/v1/completions", json=body)


def test_told_to_stop_it_finishes_what_runs_and_refuses_what_comes(start):
    server = start()
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert children == []

    async def scenario():
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            streams = [asyncio.create_task(stream(client, tokens=80)) for _ in range(8)]
            await asyncio.sleep(0.6)
            server.process.send_signal(signal.SIGTERM)
            since = time.monotonic()
            while (answer := await client.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
            assert answer.status_code == 503
            assert time.monotonic() - since < 3  # 100 ms, on a machine that ten share
            for _ in range(10):
                late = await client.post("/v1/completions", json={"prompt": "a"})
                assert late.status_code == 503
                assert late.json()["error"]["code"] == "server_shutting_down"
                assert late.headers["retry-after"]
            for each in await asyncio.gather(*streams):
                assert each.status_code == 200
                assert events(each.content)[-1]["choices"][0]["finish_reason"] == "length"

    asyncio.run(scenario())
    status, said = server.ended(20)
    assert status == 0, said
    assert "Traceback" not in said


def test_what_is_not_finished_in_the_drain_time_ends_with_an_error(start):
    server = start("drain_seconds = 0.5")

    async def scenario():
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            streams = [asyncio.create_task(stream(client, tokens=9000)) for _ in range(3)]
            whole = asyncio.create_task(
                client.post("/v1/completions", json={"prompt": "a", "max_tokens": 9000})
            )
            await asyncio.sleep(0.6)
            server.process.send_signal(signal.SIGTERM)
            for each in await asyncio.gather(*streams):
                last = each.text.strip().split("\n\n")[-1]
                assert '"server_shutting_down"' in last
                assert 'finish_reason":"' not in each.text
                assert "[DONE]" not in each.text
            answer = await whole
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "server_shutting_down"

    asyncio.run(scenario())
    status, said = server.ended(15)
    assert status == 0, said


def test_told_twice_it_leaves_at_once(start):
    server = start()

    async def scenario():
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            running = asyncio.create_task(stream(client, tokens=9000))
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            since = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.TransportError):
                await running
            return since

    since = asyncio.run(scenario())
    status, said = server.ended(15)
    assert time.monotonic() - since < 6  # 2 s, on a machine that ten share
    assert status == 128 + signal.SIGTERM, said
    assert "Traceback" not in said


@pytest.mark.parametrize("how", ["die", "hang"])
def test_with_a_dead_engine_it_says_so_and_ends_with_an_error(start, how):
    server = start("dead_seconds = 1.5")

    async def scenario():
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:
            running = asyncio.create_task(stream(client, tokens=9000 if how == "die" else 60))
            await asyncio.sleep(0.4)
            dying = asyncio.create_task(client.post("/v1/completions", json={"prompt": how}))
            since = time.monotonic()
            seen = set()
            while time.monotonic() - since < 20:
                try:
                    answers = [await client.get(path) for path in ("/readyz", "/healthz")]
                except httpx.TransportError:
                    break
                seen |= {answer.status_code for answer in answers}
                if {answer.status_code for answer in answers} == {503}:
                    asked = await client.post("/v1/completions", json={"prompt": "a"})
                    assert asked.status_code == 503
                await asyncio.sleep(0.1)
            assert 503 in seen
            answer = await dying
            assert answer.status_code == 500
            if how == "die":
                assert '"error"' in (await running).text

    asyncio.run(scenario())
    status, said = server.ended(30)
    assert status == 1
    assert "the engine has died" in said
    assert "Traceback" not in said


def test_a_dead_engine_is_no_longer_asked():
    class Dying(Slow):
        alive = True

        def describe(self):
            return {**super().describe(), "alive": self.alive}

    engine = Dying(0.01)

    async def scenario():
        async with serving(engine, dead_seconds=0.2) as site:
            engine.alive = False
            await until(site.task.done)

    with pytest.raises(FstError, match="died"):
        asyncio.run(scenario())


def test_an_engine_that_comes_back_is_asked_again():
    class Stalling(Slow):
        alive = True

        def describe(self):
            return {**super().describe(), "alive": self.alive}

    engine = Stalling(0.001)

    async def scenario(site):
        engine.alive = False
        await until(lambda: status(site, 503))
        engine.alive = True
        await until(lambda: status(site, 200))
        assert await site.complete(prompt="a", max_tokens=2)

    async def status(site, expected):
        return (await site.get("/healthz")).status_code == expected

    run(scenario, engine, dead_seconds=30)


def test_a_stream_that_is_silent_is_kept_open_by_comments():
    async def scenario(site):
        answer = await site.post(
            "/v1/completions", {"prompt": "a", "max_tokens": 2, "stream": True}
        )
        assert answer.text.count(": ping\n\n") >= 3
        assert len(events(answer.content)) == 2

    run(scenario, Slow(0.5), ping_seconds=0.1)


def test_several_servers_share_one_engine_and_one_log(capsys):
    engine = Slow(0.001)

    async def scenario():
        async with (
            serving(engine, log_requests=True) as one,
            serving(engine, log_requests=True) as two,
        ):
            for site in (one, two):
                assert await site.complete(prompt="a", max_tokens=2)

    asyncio.run(scenario())
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if '"POST"' in line]) == 2
    assert engine.begun == 2
