"""The bot of `telegram` as a process that is killed, told to stop, started wrongly, or served by others.

The scenarios B7 (over HTTP), B8, B10, B11 and B12, each with a process of its own.
"""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import sqlite3

import aiohttp
import pytest
from aiohttp import web
from bot_api import BotApi, Clock
from bot_process import TOKEN, VARIABLE, BotProcess
from people import Group, Person, until

from fst_core.errors import UserError
from fst_core.plugins import registry
from fst_core.settings import validate

# B7: an engine behind HTTP


class OpenAI:
    """A server of OpenAI's interface that does what the last message says."""

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.answer)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.port = self.runner.addresses[0][1]
        self.asked, self.left = [], 0
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def models(self, _):
        return web.json_response({"data": [{"id": "m", "max_model_len": 4096, "chat": "trained"}]})

    async def answer(self, request):
        said = (await request.json())["messages"][-1]["content"].split()
        self.asked.append(said)
        how = said[0]
        if how.isdecimal():
            headers = {"Retry-After": "2"} if how in {"429", "503"} else {}
            message = f"key sk-0123 of http://127.0.0.1:{self.port} is wrong"
            return web.json_response(
                {"error": {"message": message}}, status=int(how), headers=headers
            )
        answer = web.StreamResponse()
        await answer.prepare(request)
        words = [] if how in {"hang", "empty"} else ["one ", "two ", "three "]
        for word in words:
            await self.event(answer, {"choices": [{"delta": {"content": word}}]})
        if how == "hang":
            try:
                await asyncio.sleep(1000)
            finally:
                self.left += 1
        if how == "cut":
            request.transport.close()
        elif how == "event":
            await self.event(answer, {"error": {"message": "sk-0123"}})
        else:
            await self.event(answer, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
            await answer.write(b"data: [DONE]\n\n")
        return answer

    async def event(self, answer, said):
        await answer.write(b"data: " + json.dumps(said).encode() + b"\n\n")


@pytest.fixture(scope="module")
def remote(runner, tmp_path_factory):
    """A bot whose engine is another server."""
    server = OpenAI()
    runner.run(server.__aenter__())
    engine = {"use": "remote", "url": f"http://127.0.0.1:{server.port}/v1"}
    bot = BotProcess(tmp_path_factory.mktemp("remote"), scale=10, engine=engine, public=True)
    bot.server = server
    runner.run(bot.__aenter__())
    yield bot
    runner.run(bot.__aexit__(None, None, None))
    runner.run(server.__aexit__(None, None, None))


async def test_b7_an_engine_elsewhere_answers(remote):
    alice = Person(remote.api)
    alice.says("good morning")
    await alice.chat.gets("one two three")


@pytest.mark.parametrize("how", ["401", "429", "500", "503", "empty", "event", "cut"])
async def test_b7_a_server_that_fails_is_told_and_the_bot_goes_on(remote, how):
    alice = Person(remote.api)
    alice.says(how)
    notice = await alice.chat.gets()
    await until(remote.api, lambda: not remote.api.updates, "taken")
    shown = "".join(m.text for m in alice.chat.answers)
    for secret in ("sk-0123", "127.0.0.1", "http", "Traceback"):
        assert secret not in shown
    if how in {"event", "cut"}:
        await alice.chat.gets("one two three")
    assert notice.text
    alice.says("again")
    await alice.chat.gets("one two three")


async def test_b7_a_server_that_hangs_can_be_left(remote):
    alice, bob = Person(remote.api), Person(remote.api, "Bob")
    alice.says("hang")
    await until(remote.api, lambda: ["hang"] in remote.server.asked, "a request")
    await alice.chat.drafted()  # it is told that something goes on
    bob.says("hello")
    await bob.chat.gets("one two three")
    left = remote.server.left
    alice.says("/stop")
    await until(remote.api, lambda: remote.server.left > left, "the end of the request")


async def test_b7_a_server_that_is_gone_is_told(remote):
    alice = Person(remote.api)
    await remote.server.__aexit__()  # the last test of this bot
    alice.says("hello")
    notice = await alice.chat.gets()
    assert "127.0.0.1" not in notice.text


# B8: a power cut


async def test_b8_kill_9_in_the_middle_of_answers(tmp_path):
    async with BotProcess(tmp_path, scale=10, public=True) as bot:
        alice, bob, carol = (Person(bot.api, name) for name in ("Alice", "Bob", "Carol"))
        group = Group(bot.api)
        bob.says("tokens=3 name=before")
        (before,) = bot.api.updates.values()
        await bob.chat.gets("before3")
        alice.says("tokens=4000 speed=20 name=cut")
        carol.says("@fst_bot tokens=4000 speed=20 name=group", place=group)
        await alice.chat.sees("cut5 ")
        await group.sees("group5 ")
        updates = max(u for u, _ in bot.api.delivered)
        await bot.kill()
        bot.api.updates[before["update_id"]] = before  # as if nobody had confirmed it
        bob.says("tokens=3 name=meanwhile")
        asked = len(bot.asked)
        await bot.start()
        await alice.chat.gets("/retry")
        await group.gets("/retry")
        await bob.chat.gets("meanwhile3")
        await bot.quiet()
        # What was asked before is not asked again, and what came meanwhile is answered once.
        assert [r["prompt"][-1][1] for r in bot.asked[asked:]] == ["tokens=3 name=meanwhile"]
        assert bot.api.confirmed > updates
        assert len([m for m in alice.chat.answers if "/retry" in m.text]) == 1
        # The history is there: both turns of Bob's first exchange.
        bob.says("tokens=3 name=history")
        await bob.chat.gets("history3")
        turns = [content for _, content in bot.asked_about("name=history")[-1]["prompt"]]
        assert "tokens=3 name=before" in turns
        assert any("before3" in turn for turn in turns)
        # And what was cut can be had.
        alice.says("/retry")
        await until(bot.api, lambda: len(bot.asked_about("name=cut")) == 2, "the same question")
        alice.says("/stop")
        await bot.quiet()
    with sqlite3.connect(tmp_path / "state.sqlite3") as state:
        assert state.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert state.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# B10: a signal


async def test_b10_told_to_stop_it_finishes_what_runs_and_confirms_what_it_took(tmp_path):
    async with BotProcess(
        tmp_path, scale=5, public=True, engine={"slots": 6}, drain_seconds=8
    ) as bot:
        people = [Person(bot.api, f"P{n}") for n in range(5)]
        # At 20 a second the last one is not ready within the time.
        lengths = [60, 60, 60, 60, 4000]
        for person, length in zip(people, lengths, strict=True):
            person.says(f"tokens={length} speed=20 name=w{person.id}x")
        for person in people:
            await person.chat.sees(f"w{person.id}x1 ")
        # One more, who may not be written to before the end.
        flooded = Person(bot.api, "Flooded")
        flooded.says("tokens=40 speed=20 name=flooded")
        await flooded.chat.sees("flooded1 ")
        bot.api.refuse(
            "sendMessage", "sendMessageDraft", chat=flooded.id, status=429, retry_after=12
        )
        await until(bot.api, lambda: bot.api.pace.until.get(flooded.id), "a refusal")
        bot.process.send_signal(signal.SIGTERM)
        told = bot.api.now()
        late = Person(bot.api, "Late")
        late.says("tokens=2 name=late")
        assert await bot.ended() == 0
        took = bot.api.now() - told
        assert took < 8 + 15  # seconds of a clock five times faster
        for person, length in zip(people[:4], lengths, strict=False):
            assert any(f"w{person.id}x{length}" in m.text for m in person.chat.answers)
        cut = people[4].chat.answers
        assert any(f"w{people[4].id}x9 " in m.text for m in cut)
        assert f"w{people[4].id}x4000" not in "".join(m.text for m in cut)
        # What it took is confirmed, what came later is not: the next process answers it.
        handed = {u for u, at in bot.api.delivered if at < told}
        assert bot.api.confirmed > max(handed)
        assert bot.api.updates or late.chat.answers
        assert bot.api.pace.violations == []
        await bot.start()
        await late.chat.gets("late2")
        await flooded.chat.gets("/retry")
    assert bot.process.returncode == 0


async def test_b10_told_once_it_confirms_what_it_took_and_told_twice_it_leaves(tmp_path):
    async with BotProcess(tmp_path, public=True, drain_seconds=600) as bot:

        async def hold(call):
            """Let no call that waits for updates confirm those before."""
            if call.method == "getUpdates" and call.parameters.get("timeout"):
                await asyncio.sleep(3600)

        alice = Person(bot.api)
        bot.api.on_call = hold
        alice.says("fail=hang")
        await until(bot.api, lambda: bot.asked, "a request")
        assert bot.api.updates
        bot.process.send_signal(signal.SIGTERM)
        await until(bot.api, lambda: not bot.api.updates, "it confirms")
        assert bot.process.poll() is None  # it waits for the answer
        bot.process.send_signal(signal.SIGTERM)
        assert await bot.ended(30) == 143
        assert "Traceback" not in bot.logs


# B11: a webhook


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def test_b11_a_webhook_takes_what_has_its_secret_and_nothing_else(tmp_path):
    port, secret = free_port(), "s3cret-of_the_webhook"
    url = "https://bots.example/telegram"
    webhook = {"url": url, "host": "127.0.0.1", "port": port, "secret_env": "HOOK"}
    api = BotApi(TOKEN, clock=Clock(10))
    api.proxy = f"http://127.0.0.1:{port}"
    async with api:
        bot = BotProcess(
            tmp_path, api=api, public=True, webhook=webhook, environment={"HOOK": secret}
        )
        async with bot, aiohttp.ClientSession() as session:
            alice = Person(api)
            alice.says("tokens=3 name=hook")
            await alice.chat.gets("hook3")
            assert api.calls_of("getUpdates") == []
            assert api.webhook["secret"] == secret
            address = f"{api.proxy}/telegram"
            chat = alice.chat.described()
            message = {"message_id": 9, "date": 1_790_000_000, "chat": chat, "from": alice.user}
            forged = {"update_id": 10**6, "message": {**message, "text": "name=forged"}}
            name = "X-Telegram-Bot-Api-Secret-Token"
            wrong = [
                {}, {name: ""}, {name: "wrong"}, {name: secret + "x"}, {name: "é\u044f"}, {name: secret[:-1]},
                {"X-Forwarded-For": "149.154.167.220"}, {"Authorization": secret},
            ]  # fmt: skip
            for headers in wrong:
                raw = {k: v.encode().decode("latin-1") for k, v in headers.items()}
                async with session.post(address, json=forged, headers=raw) as answer:
                    assert answer.status == 401, headers
            good = {name: secret}
            large = io.BytesIO(b"{" + b" " * (5 << 20))
            async with session.post(address, data=large, headers=good) as answer:
                assert answer.status == 413
            async with session.post(address, data=b"{nonsense", headers=good) as answer:
                assert answer.status in {200, 400}
            async with session.get(address, headers=good) as answer:
                assert answer.status in {404, 405}
            async with session.post(f"{api.proxy}/other", json=forged, headers=good) as answer:
                assert answer.status == 404
            # Telegram sends again what was not taken in time: it is handled once.
            twice = {"update_id": 10**6 + 1, "message": {**message, "text": "tokens=2 name=twice"}}
            for _ in range(2):
                async with session.post(address, json=twice, headers=good) as answer:
                    assert answer.status == 200
            await alice.chat.gets("twice2")
            alice.says("tokens=3 name=after")
            await alice.chat.gets("after3")
            await bot.quiet()
            assert bot.asked_about("forged") == []
            assert len(bot.asked_about("twice")) == 1
            assert secret not in bot.logs


@pytest.mark.parametrize("secret", ["", "too short", "letters beyond ASCII: \u044f" * 3])
def test_b11_a_webhook_without_a_secret_is_refused_at_the_start(monkeypatch, secret):
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setenv("HOOK", secret)
    webhook = {"url": "https://bots.example/telegram", "secret_env": "HOOK"}
    offer = registry().find("frontend", "telegram")
    settings = validate(
        offer.settings_class(), {"token_env": VARIABLE, "public": True, "webhook": webhook}
    )
    with pytest.raises(UserError, match="HOOK") as refused:
        offer.build(settings)
    assert not secret or secret not in str(refused.value)


# B12: what is told to nobody


async def test_b12_no_token_and_no_text_is_in_a_log(tmp_path):
    async with BotProcess(tmp_path, scale=10, public=True) as bot:
        alice, secret = (
            Person(bot.api, "Alice", username="alice_in_logs"),
            "the combination is 12-34-56",
        )
        alice.says(f"{secret} tokens=3 name=quiet")
        await alice.chat.gets("quiet3")
        alice.says(f"{secret} fail=bug")
        await alice.chat.gets()
        bot.api.refuse(
            "sendMessage",
            "sendMessageDraft",
            chat=alice.id,
            times=3,
            status=500,
            description="Internal",
        )
        alice.says(f"{secret} tokens=3 name=loud")
        await alice.chat.gets("loud3")
        alice.says("/settings")
        await alice.chat.gets(lambda m: m.buttons)
        bot.process.send_signal(signal.SIGTERM)
        assert await bot.ended() == 0
        logs = bot.logs
        assert "INFO" in logs  # there is something to look at
        for word in (TOKEN, TOKEN.split(":")[1], secret, "quiet3", "sk-0123", "alice_in_logs"):
            assert word not in logs


@pytest.mark.parametrize("token", ["", "nonsense", "42:"])
def test_b12_what_is_no_token_is_refused_without_being_told(monkeypatch, token):
    monkeypatch.setenv(VARIABLE, token)
    offer = registry().find("frontend", "telegram")
    settings = validate(offer.settings_class(), {"token_env": VARIABLE, "public": True})
    with pytest.raises(UserError, match=VARIABLE) as refused:
        offer.build(settings)
    assert not token or token not in str(refused.value)


async def test_b12_a_token_of_nobody_is_told_without_it(tmp_path):
    async with BotApi(TOKEN) as api:
        token = "42:AAnot-the-one_of_this_bot"
        bot = BotProcess(tmp_path, api=api, public=True, environment={VARIABLE: token})
        bot.begin()
        assert await bot.ended() == 2
        assert "Traceback" not in bot.logs
        assert f"token_env: the variable {VARIABLE}" in bot.logs
        assert token not in bot.logs
