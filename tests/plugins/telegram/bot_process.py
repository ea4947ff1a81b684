"""The bot as people run it: `fst serve` in a process of its own, towards the fake Bot API."""

from __future__ import annotations

import json
import signal
import subprocess

import psutil
from bot_api import BotApi, Clock
from bot_api_limits import Limits
from fakes import arguments_of, environment_of
from people import PATIENCE, until

TOKEN = "7654321:AAscrambled-Token_of_nobody-0123456"
"""What no log may hold."""
ENDS = {"ended", "left", "failed", "refused"}
"""How a request to the engine may end."""
VARIABLE = "FST_TEST_TELEGRAM_TOKEN"


class BotProcess:
    """A bot, its server and its engine's notes.

        async with BotProcess(folder, scale=10, public=True) as bot:
            alice = Person(bot.api)

    Args:
        folder: where it has its pipeline, its state and its logs.
        scale: how fast its clock runs, and its server's.
        engine: the table [engine]; `scripted` unless it says `use`.
        limits: of the server.
        environment: further variables.
        target: a model's directory, whose own engine answers then.
        api: a server that is used by others too.
        settings: of the frontend `telegram`.
    """

    def __init__(
        self,
        folder,
        *,
        scale=1.0,
        engine=None,
        limits=None,
        environment=None,
        target=None,
        api=None,
        **settings,
    ):
        self.folder, self.target = folder, target
        self.api = api or BotApi(TOKEN, clock=Clock(scale), limits=limits or Limits())
        self.owns_api = api is None
        self.notes = folder / "engine.jsonl"
        self.engine = engine or {}
        scripted = {"use": "scripted", "log": str(self.notes)}
        self.tables = {
            "engine": (scripted | self.engine) if "use" not in self.engine else self.engine
        }
        self.settings = {
            "use": "telegram",
            "token_env": VARIABLE,
            "max_new_tokens": 4096,
            "state": str(folder / "state.sqlite3"),
        }
        self.settings |= settings
        self.environment = {
            "FST_FAKE_LOG": "INFO",
            VARIABLE: TOKEN,
            "FST_FAKE_CLOCK": self.api.clock.told,
            "OMP_NUM_THREADS": "1",
        }
        self.environment |= environment or {}
        self.process = None
        self.starts, self.begun = 0, 0.0

    async def __aenter__(self):
        if self.owns_api:
            await self.api.__aenter__()
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            await self.stop()
        if self.owns_api:
            await self.api.__aexit__()

    @property
    def logs(self):
        """All that its processes printed."""
        files = sorted(self.folder.glob("bot-*.log"))
        return "".join(f.read_text("utf-8", errors="replace") for f in files)

    @property
    def asked(self):
        """What the engine was asked, in order: by what, and how each ended."""
        requests, current = [], {}
        if self.notes.exists():
            *lines, _ = self.notes.read_bytes().split(b"\n")  # the last one may not be whole yet
            for line in lines:
                note = json.loads(line)
                if note["event"] == "asked":
                    requests.append({"times": {}})
                    current[note["id"]] = requests[-1]
                request = current[note["id"]]
                request |= note
                request["times"][note["event"]] = note["at"]
        return requests

    def asked_about(self, word):
        """Return the engine's requests whose last message has this word."""
        return [r for r in self.asked if word in _last(r["prompt"])]

    def begin(self):
        """Start the process."""
        self.starts, self.begun = self.starts + 1, self.api.now()
        self.settings["api_base"] = self.api.url
        pipeline = self.folder / "bot.toml"
        pipeline.write_text(_toml(self.tables, self.settings), "utf-8")
        arguments = [pipeline]
        if self.target is not None:  # a model has an engine of its own
            arguments = [self.target]
            for place, table in (("serve.0", self.settings), ("engine", self.engine)):
                arguments += [
                    part for k, v in table.items() for part in ("-s", f"{place}.{k}={_value(v)}")
                ]
        with (self.folder / f"bot-{self.starts}.log").open("wb") as log:
            self.process = subprocess.Popen(
                arguments_of("serve", *arguments),
                env=environment_of(["scripted"], **self.environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )

    async def start(self):
        """Start the process, and wait until it asks for updates or has set a webhook."""
        self.begin()
        since = self.api.now()

        def listens():
            assert self.process.poll() is None, f"the bot has ended: {self.logs}"
            return self.api.webhook or self.api.calls_of("getUpdates", since=since)

        await until(self.api, listens, lambda: f"the bot listens; it says {self.logs}")

    async def stop(self, number=signal.SIGTERM):
        """Send a signal and wait for the end; return the exit status."""
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self, seconds=PATIENCE):
        """Wait for the end of the process and return the exit status; check what it has printed."""
        await until(self.api, lambda: self.process.poll() is not None, "the bot's end", seconds)
        self.check_logs()
        assert self.api.faults == []
        return self.process.returncode

    async def kill(self):
        """End the process as a power cut would."""
        self.process.kill()
        await self.ended()

    def check_logs(self):
        """Nothing that is printed has the token, or what people say."""
        logs = self.logs
        assert TOKEN not in logs
        assert TOKEN.split(":")[1] not in logs
        assert "Task was destroyed" not in logs
        assert "never awaited" not in logs
        for chat in self.api.chats.values():
            for message in chat.messages.values():
                said = message.text
                assert message.sender["is_bot"] or len(said) < 12 or said not in logs, (
                    f"{said!r} is in the log"
                )

    @property
    def memory(self):
        """The process's resident memory, in bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    async def quiet(self):
        """Wait until the bot has taken every update and the engine has nothing to do."""

        def idle():
            mine = [r for r in self.asked if r["times"]["asked"] > self.begun]
            return not self.api.updates and all(ENDS & set(r["times"]) for r in mine)

        def busy():
            return f"a quiet bot; it has {self.asked[-3:]}, {self.api.updates}"

        await until(self.api, idle, busy)


def _last(prompt):
    return prompt if isinstance(prompt, str) else prompt[-1][1]


def _toml(tables, serve):
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    lines += ["[[serve]]", *(f"{key} = {_value(value)}" for key, value in serve.items())]
    return "\n".join(lines) + "\n"


def _value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)
