"""The server on a real socket in the test's own event loop, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager

import httpx
from fst_engine.local import LocalEngine
from fst_engine.settings import LocalSettings
from fst_fastapi.frontend import FastapiFrontend
from fst_fastapi.settings import FastapiSettings
from fst_samplers.settings import StandardSettings
from fst_samplers.standard import StandardSampler

from fst_core import Chunk
from fst_core.settings import validate
from fst_core.testing.echo import EchoEngine
from fst_core.testing.toys import ToyTokenizer, toy_module


class Site:
    """A server that runs, and a polite client of it."""

    def __init__(self, frontend, stopping):
        self.frontend, self.stopping = frontend, stopping

    @property
    def port(self):
        return int(self.frontend.url.rpartition(":")[2])

    async def post(self, path, body, **headers):
        return await self.client.post(path, json=body, headers=headers)

    async def get(self, path, **headers):
        return await self.client.get(path, headers=headers)

    async def complete(self, **fields):
        """Return what a whole completion says."""
        answer = await self.post("/v1/completions", fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def stream(self, path="/v1/completions", **fields):
        """Return the objects of a stream, which has to end as streams do."""
        answer = await self.post(path, {**fields, "stream": True})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return events(answer.content)

    async def metric(self, name):
        """Return the sum of a metric's samples."""
        text = (await self.get("/metrics")).text
        found = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? ([0-9.e+]+)$", text, re.MULTILINE)
        return sum(map(float, found))

    async def raw(self, path="/v1/completions", body=None, *, head="", close=True):
        """Open a connection and send a request; return its two ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        content = json.dumps(body or {}).encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{head}"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        return reader, writer


def events(content):
    """Return the objects of server-sent events that end with [DONE]."""
    parts = content.decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    lines = [part for part in parts[:-2] if not part.startswith(":")]
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@asynccontextmanager
async def serving(engine, *, key=None, **settings):
    """Serve an engine until the block ends."""
    frontend = FastapiFrontend(
        validate(FastapiSettings, {"port": 0, "log_requests": False, **settings})
    )
    stopping = asyncio.Event()
    task = asyncio.create_task(frontend.serve(engine, stopping))
    try:
        await until(lambda: task.done() or frontend.url, 20)
        if task.done():
            await task
        site = Site(frontend, stopping)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=frontend.url,
            headers=headers,
            trust_env=False,
            timeout=60,
            limits=limits,
        ) as site.client:
            site.task = task
            yield site
        stopping.set()
        await asyncio.wait_for(task, 40)
    finally:
        task.cancel()
        await asyncio.wait([task])
        await engine.close()


async def until(holds, seconds=20):
    """Wait until something holds, and return it; it may be a coroutine function."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, "it did not come to hold"
        await asyncio.sleep(0.01)


def run(scenario, engine, **settings):
    """Serve an engine, and run a scenario with the site."""

    async def whole():
        async with serving(engine, **settings) as site:
            return await scenario(site)

    return asyncio.run(whole())


def toy_engine(module=None, *, more=(), **settings):
    """A real engine over a small module of 64 positions, which writes letters."""
    standard = StandardSettings()
    samplers = [(StandardSampler(standard), standard), *more]
    engine = LocalEngine(validate(LocalSettings, settings))
    return engine.for_module(module or toy_module(64), ToyTokenizer(), samplers, 64)


class Slow(EchoEngine):
    """Writes a letter every so often for ever, and counts what is asked of it."""

    def __init__(self, seconds=0.01, tokens=None):
        self.seconds, self.tokens = seconds, tokens
        self.begun = self.running = self.most = self.made = self.encoded = 0

    def describe(self):
        return {"name": "slow", "context_length": 4096, "alive": True}

    async def stream(self, request):
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        wanted = self.tokens or request.max_new_tokens
        try:
            await self.encode(request.prompt)
            for number in range(wanted):
                await asyncio.sleep(self.seconds)
                self.made += 1
                ended = "length" if number == wanted - 1 else None
                yield Chunk("a", (97,), None, ended, None if number else 1)
        finally:
            self.running -= 1

    async def encode(self, prompt):
        self.encoded += 1
        return await super().encode(prompt)
