"""Limits on bytes and seconds, against clients that send too much, too slowly, or do not read (S3, S7)."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from contextlib import suppress

import pytest
from fst_fastapi.app import build_app
from fst_fastapi.keys import read_keys
from fst_fastapi.service import Service
from wire import Slow, run, until

MIB = 1 << 20


async def talk(site, *parts, pause=0.0):
    """Send parts, and return what comes back until the server closes, or half a second passes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(), 10)
    except (ConnectionError, TimeoutError) as error:
        return type(error).__name__.encode()
    finally:
        writer.close()


def head(*lines, method="POST", path="/v1/completions"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


JSON = "content-type: application/json"


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    async def scenario(site):
        body = json.dumps({"prompt": "a" * MIB}).encode()
        answer = await site.client.post("/v1/completions", content=body)
        assert answer.status_code in {413, 415}
        answer = await site.post("/v1/completions", {"prompt": "a" * MIB})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        said = await talk(site, head(JSON, "content-length: 99999999999"))
        assert said.startswith(b"HTTP/1.1 413")

    run(scenario, Slow())


def test_a_chunked_body_is_read_only_a_little_beyond_the_limit():
    sent = 0

    async def scenario(site):
        nonlocal sent
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head(JSON, "transfer-encoding: chunked"))
        piece = b"10000\r\n" + b"a" * (64 << 10) + b"\r\n"
        try:
            while sent < 64 * MIB:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 2)
                sent += 64 << 10
        except (ConnectionError, TimeoutError):
            pass
        with suppress(ConnectionError):  # a reset, as the client did not stop sending
            said = await asyncio.wait_for(reader.read(20), 5)
            assert said.startswith(b"HTTP/1.1 413") or not said
        writer.close()
        assert sent < 16 * MIB  # the system's own buffers take some of it

    run(scenario, Slow(), max_body_bytes=MIB)


def test_of_a_body_over_the_limit_little_more_than_the_limit_is_taken():
    """Without the system's buffers in between: what the server itself takes of an endless body."""
    part, taken = b"a" * (16 << 10), 0

    async def scenario(site):
        async def endless():
            nonlocal taken
            taken += len(part)
            return {"type": "http.request", "body": part, "more_body": True}

        async def send(message):
            said.append(message)

        said = []
        service = Service(Slow(), site.frontend.settings)
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        headers.append((b"transfer-encoding", b"chunked"))
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/completions",
            "raw_path": b"/v1/completions", "query_string": b"", "root_path": "", "scheme": "http",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        await build_app(service, read_keys(service.settings))(scope, endless, send)
        assert said[0]["status"] == 413
        assert taken <= MIB + (96 << 10)

    run(scenario, Slow(), max_body_bytes=MIB)


def test_a_compressed_body_is_refused():
    async def scenario(site):
        bomb = gzip.compress(b"0" * MIB)
        headers = {"content-encoding": "gzip", "content-type": "application/json"}
        answer = await site.client.post("/v1/completions", content=bomb, headers=headers)
        assert answer.status_code == 415

    run(scenario, Slow())


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([f"x-large: {'a' * (64 << 10)}"], b"431"),
        ([f"x-{n}: {'a' * 1000}" for n in range(20)], b"431"),
        ([f"x-{n}: a" for n in range(120)], b"431"),
        ([f"authorization: Bearer {'k' * MIB}"], b"431"),
        (["nonsense"], b"400"),
        (["content-length: -1"], b"400"),
        (["content-length: 1", "content-length: 2"], b"400"),
        (["content-length: 5", "transfer-encoding: chunked"], b"400"),
    ],
)
def test_a_header_out_of_bounds_is_refused(lines, status):
    async def scenario(site):
        said = await talk(site, head(*lines))
        assert said.startswith(b"HTTP/1.1 " + status) or said == b"ConnectionResetError"
        assert (await site.get("/readyz")).status_code == 200

    run(scenario, Slow())


def test_a_path_out_of_bounds_is_refused():
    async def scenario(site):
        said = await talk(site, head(method="GET", path="/" + "a" * (64 << 10)))
        assert (
            said.startswith((b"HTTP/1.1 414", b"HTTP/1.1 431")) or said == b"ConnectionResetError"
        )

    run(scenario, Slow())


def test_slow_senders_are_closed_and_keep_nobody_waiting():
    async def scenario(site):
        connections = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(200)]
        for number, (_, writer) in enumerate(connections):
            writer.write(head(JSON, "content-length: 400") if number % 2 else b"POST /v1/comp")
        for _ in range(5):
            answer = await site.post("/v1/completions", {"prompt": "a", "max_tokens": 2})
            assert answer.status_code == 200
            for _, writer in connections:
                writer.write(b"a")
            await asyncio.sleep(0.05)
        ended = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in connections)), 20
        )
        assert all(said.startswith(b"HTTP/1.1 408") for said in ended)
        for _, writer in connections:
            writer.close()

    run(scenario, Slow(0.001), stall_seconds=1.5)


def test_a_connection_without_a_request_is_closed():
    async def scenario(site):
        assert await talk(site, b"") == b""
        assert await talk(site, b"\r\n") == b""

    run(scenario, Slow(), stall_seconds=0.5)


def test_one_connection_too_many_is_refused():
    async def scenario(site):
        kept = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(5)]
        said = await talk(site, head())
        assert said.startswith(b"HTTP/1.1 503")
        for _, writer in kept:
            writer.close()
        await until(lambda: ready(site))

    async def ready(site):
        return (await site.get("/readyz")).status_code == 200

    run(scenario, Slow(), max_connections=5)


def test_who_hardly_reads_is_ended_and_nobody_waits_for_him():
    """A byte a moment, through the smallest buffers that the client's system has."""
    engine = Slow(0.0)

    async def scenario(site):
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", site.port))
            content = json.dumps({"prompt": "a", "max_tokens": 10**6, "stream": True}).encode()
            slow.sendall(head(JSON, f"content-length: {len(content)}") + content)
            slow.setblocking(False)
            await until(lambda: engine.running == 1)
            other = await site.stream(prompt="b", max_tokens=20)
            assert len(other) == 20

            def read():
                with suppress(OSError):
                    slow.recv(1)
                return engine.running == 0

            await until(read, 30)
        # An event has some 200 bytes: 64 KiB of the server's, and what the system holds beside.
        assert engine.made < 5_000

    run(scenario, engine, stall_seconds=1)
