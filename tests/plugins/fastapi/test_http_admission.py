"""Admission, floods, and clients that leave (scenarios S4, S5 and S6)."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

import pytest
from wire import Slow, run, until

from fst_core.errors import EngineBusy


class Busy(Slow):
    """Refuses, as an engine does whose own line is full."""

    async def stream(self, request):
        raise EngineBusy("too many")
        yield


def test_a_flood_is_refused_at_once_and_the_admitted_finish():
    engine = Slow(0.02, tokens=20)

    async def scenario(site):
        async def one(number):
            since = time.monotonic()
            answer = await site.post(
                "/v1/completions", {"prompt": str(number), "stream": number % 2 == 0}
            )
            return answer, time.monotonic() - since

        answered = await asyncio.gather(*(one(n) for n in range(200)))
        refused = [(answer, took) for answer, took in answered if answer.status_code != 200]
        assert len(answered) - len(refused) == 20
        assert {answer.status_code for answer, _ in refused} == {503}
        for answer, _ in refused:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.json()["error"]["code"] == "server_overloaded"
        assert engine.most == 4
        assert engine.begun == engine.encoded == 20
        # In this process the client's own work is most of it: 250 ms hold for two processes.
        assert sorted(took for _, took in refused)[-2] < 5
        assert await site.metric("vllm:num_requests_running") == 0
        assert await site.metric("vllm:num_requests_waiting") == 0

    run(scenario, engine, max_running=4, max_waiting=16)


def test_who_waits_too_long_is_refused():
    async def scenario(site):
        first = asyncio.create_task(site.complete(prompt="a", max_tokens=100))
        await until(lambda: engine.running)
        late = await site.post("/v1/completions", {"prompt": "b", "n": 3})
        assert late.status_code == 503
        assert "retry-after" in late.headers
        await first
        assert engine.begun == 1

    engine = Slow(0.02)
    run(scenario, engine, max_running=1, waiting_seconds=0.3)


def test_a_request_with_many_generations_waits_for_itself_as_long_as_it_takes():
    engine = Slow(0.05)

    async def scenario(site):
        answer = await site.complete(prompt="a", n=6, max_tokens=4)
        assert len(answer["choices"]) == 6
        assert engine.most == 1

    run(scenario, engine, max_running=1, max_waiting=8, waiting_seconds=0.3)


def test_a_request_that_can_never_enter_is_wrong_and_not_early():
    async def scenario(site):
        answer = await site.post("/v1/completions", {"prompt": "a", "n": 4})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")

    run(scenario, Slow(), max_running=2, max_waiting=1)


def test_places_are_shared_by_requests_not_taken_by_one():
    order = []

    class Noting(Slow):
        async def stream(self, request):
            order.append(request.prompt)
            async for chunk in super().stream(request):
                yield chunk

    engine = Noting(0.02)

    async def scenario(site):
        large = asyncio.create_task(site.complete(prompt="large", n=4, max_tokens=3))
        await until(lambda: order)
        await asyncio.gather(large, site.complete(prompt="small", max_tokens=3))
        assert order.index("small") <= 2

    run(scenario, engine, max_running=1, max_waiting=8)


def test_an_engine_that_is_busy_itself_is_told_as_such():
    async def scenario(site):
        answer = await site.post("/v1/completions", {"prompt": "a"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert await site.metric("fst:requests_total") == 1

    run(scenario, Busy())


def test_a_request_takes_no_longer_than_it_may():
    engine = Slow(0.05)

    async def scenario(site):
        answer = await site.post("/v1/completions", {"prompt": "a", "max_tokens": 1000})
        assert answer.status_code == 504
        assert answer.headers["x-should-retry"] == "false"
        body = {"prompt": "a", "max_tokens": 1000, "stream": True}
        answer = await site.post("/v1/completions", body)
        assert answer.status_code == 200
        last = answer.text.strip().split("\n\n")[-1]
        assert '"request_timeout"' in last
        assert "[DONE]" not in answer.text
        await until(lambda: engine.running == 0)

    run(scenario, engine, request_seconds=0.3)


def test_a_hundred_clients_that_leave_cost_nothing_more():
    engine = Slow(0.005)

    async def scenario(site):
        async def leave(_):
            body = {"prompt": "a", "max_tokens": 4000, "stream": True}
            reader, writer = await site.raw(body=body)
            received = 0
            while received < 3:
                received += (await reader.readuntil(b"\n\n")).count(b'"text"')
            writer.close()

        for _ in range(10):
            await asyncio.gather(*(leave(n) for n in range(10)))
        await until(lambda: engine.running == 0)
        # 10 at a time: what is made after the third token until the server hears of it.
        assert engine.made < 100 * (3 + 30)
        assert await site.metric("vllm:num_requests_running") == 0
        await until(lambda: aborted(site, 100))
        made = engine.made
        await asyncio.sleep(0.1)
        assert engine.made == made

    run(scenario, engine)


async def aborted(site, count):
    text = (await site.get("/metrics")).text
    return f'fst:requests_total{{outcome="aborted"}} {count}.0' in text


class Thinking(Slow):
    """Reads a prompt for ever, so that there is no first token to tell whether anybody is there."""

    async def encode(self, prompt):
        await asyncio.sleep(3600)


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize("when", ["queued", "reading", "running"])
def test_a_whole_answer_is_not_made_for_who_has_left(how, when):
    engine = Thinking() if when == "reading" else Slow(0.01)

    async def scenario(site):
        if when == "queued":
            blocker = asyncio.create_task(site.complete(prompt="x", max_tokens=40))
            await until(lambda: engine.running == 1)
        before = engine.begun
        _, writer = await site.raw(body={"prompt": "a", "max_tokens": 4000})
        if when == "queued":
            await until(lambda: waiting(site, 1))
        else:
            await until(lambda: engine.running == 1)
        if how == "half":
            writer.write_eof()
        elif how == "reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.close()
        since = time.monotonic()
        if when == "queued":
            await until(lambda: waiting(site, 0))
            await blocker
            assert engine.begun == before
        await until(lambda: engine.running == 0)
        assert time.monotonic() - since < 5  # 250 ms, on a machine that ten share
        await until(lambda: aborted(site, 1))
        writer.close()

    run(scenario, engine, max_running=1)


async def waiting(site, count):
    return await site.metric("vllm:num_requests_waiting") == count


def test_what_was_counted_adds_up():
    async def scenario(site):
        await asyncio.gather(*(site.complete(prompt="a", max_tokens=3) for _ in range(5)))
        for _ in range(3):
            await site.post("/v1/completions", {"prompt": []})
        _, writer = await site.raw(body={"prompt": "a", "max_tokens": 4000})
        await until(lambda: engine.running == 1)
        writer.close()
        await until(lambda: aborted(site, 1))
        assert await site.metric("fst:requests_started_total") == 9
        assert await site.metric("fst:requests_total") == 9
        text = (await site.get("/metrics")).text
        for outcome, count in {"ok": 5, "rejected": 3, "aborted": 1, "failed": 0}.items():
            assert f'fst:requests_total{{outcome="{outcome}"}} {count}.0' in text
        assert await site.metric("vllm:request_success_total") == 5
        assert await site.metric("vllm:time_to_first_token_seconds_count") >= 5

    engine = Slow(0.005)
    run(scenario, engine)
