"""The frontend `telegram` keeps the contract of frontends, towards the fake Bot API."""

from __future__ import annotations

import asyncio
import threading

import pytest
from bot_api import BotApi
from bot_api_limits import Limits
from bot_process import TOKEN, VARIABLE
from people import Person

from fst_core.testing import FrontendContract


class TestTelegram(FrontendContract):
    use = "telegram"

    @pytest.fixture(autouse=True)
    def server(self, tmp_path, monkeypatch):
        """A server in a thread: the contract has event loops of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        self.api = BotApi(TOKEN, limits=Limits(burst=100, group_minute=100, bot_second=1000))
        self.call(loop, self.api.__aenter__()).result()
        self.loop = loop
        monkeypatch.setenv(VARIABLE, TOKEN)
        monkeypatch.setattr(
            type(self), "settings",
            {
                "token_env": VARIABLE, "public": True, "api_base": self.api.url,
                "state": str(tmp_path / "state.sqlite3"), "drain_seconds": 5,
            },
        )  # fmt: skip
        yield
        self.call(loop, self.api.__aexit__(None, None, None)).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def call(self, loop, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop)

    async def ask(self, prompt):
        return await asyncio.wrap_future(self.call(self.loop, self.say(prompt)))

    async def say(self, prompt):
        """Say a prompt as somebody new, and return what is answered, without the prompt itself."""
        person = Person(self.api)
        person.says(prompt)
        answer = await person.chat.gets(seconds=self.seconds)
        return answer.text.removeprefix(prompt)
