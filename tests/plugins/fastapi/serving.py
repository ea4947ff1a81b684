"""What tests of the server share: an engine that writes what it is told, and the server in a thread."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from typing import Any, Literal

import torch
from fst_engine.local import LocalEngine
from fst_engine.parameters import Parameters
from fst_engine.settings import LocalSettings
from fst_fastapi.frontend import FastapiFrontend
from fst_fastapi.settings import FastapiSettings
from fst_samplers.settings import StandardSettings
from fst_samplers.standard import StandardSampler
from pydantic import Field

from fst_core import Chunk, Engine, Sampler, Settings
from fst_core.errors import UserError
from fst_core.settings import validate
from fst_core.testing.toys import ToyTokenizer, toy_module

KEY = "a-key-for-tests-of-the-server"


class LetterSettings(Settings):
    """Settings of a third party's sampler, of several kinds."""

    letter: str = Field("", max_length=1)
    """A letter that is written instead of others; none by default."""
    case: Literal["lower", "upper"] = "lower"
    """In which case it is written."""
    always: bool = True
    """Whether it is certain, or only likely."""
    tokens: int | None = Field(None, ge=1)
    """How many tokens are chosen so; all by default."""
    look: dict[str, Any] | None = None
    """How it would look if anybody saw it."""


class LetterSampler(Sampler):
    """A third party's sampler."""

    def __init__(self, settings):
        pass

    def adjust(self, logits, rows):
        for row, parameters in enumerate(rows.parameters):
            written = len(rows.history[row]) - rows.prompt_lengths[row]
            if parameters.letter and written < (parameters.tokens or math.inf):
                letter = getattr(parameters.letter, parameters.case)()
                others = torch.full_like(logits[row], -math.inf if parameters.always else -5.0)
                others[ord(letter)] = 0.0
                logits[row] = others
        return logits


def samplers():
    """A pipeline's, with their settings."""
    letter, standard = LetterSettings(), StandardSettings(temperature=0.8)
    return [(LetterSampler(letter), letter), (StandardSampler(standard), standard)]


class ScriptedEngine(Engine):
    """Writes given pieces, one a token, and remembers what it was asked and what was cancelled.

    A piece that is an error is raised, and so is `error`, before anything is written.
    """

    def __init__(self, pieces=("Roses ", "are ", "red."), *, seconds=0.0, chat="default"):
        self.pieces, self.seconds, self.chat = list(pieces), seconds, chat
        self.requests, self.cancelled, self.error = [], [], None
        self.parameters = Parameters(samplers())

    def for_module(self, module, tokenizer, samplers, context_length, *, supports_cache=True):
        return self

    def for_artefact(self, directory, samplers):
        return self

    def describe(self):
        return {
            "name": "scripted",
            "model": "scripted",
            "alive": True,
            "context_length": 64,
            "chat": self.chat,
            "sampling": self.parameters.schema(),
        }

    async def stream(self, request):
        self.parameters.merged(request.parameters)
        if self.error is not None:
            raise self.error
        self.requests.append(request)
        most = request.max_new_tokens
        pieces = self.pieces if most is None else self.pieces[:most]
        try:
            for number, piece in enumerate(pieces):
                await asyncio.sleep(self.seconds)
                if isinstance(piece, Exception):
                    raise piece
                count = None if number else len(await self.encode(request.prompt))
                yield Chunk(text=piece, ids=(number,), prompt_tokens=count)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(request)
            raise
        ended = len(pieces) == len(self.pieces)
        yield Chunk(finish_reason="stop" if ended else "length")

    async def encode(self, prompt):
        if isinstance(prompt, tuple) and prompt and not isinstance(prompt[0], int):
            prompt = "".join(message.content for message in prompt)
        return tuple(prompt.encode()) if isinstance(prompt, str) else prompt

    async def decode(self, ids):
        if any(i > 255 for i in ids):
            raise UserError("ids: an id is not in the vocabulary")
        return bytes(ids).decode(errors="replace")


CONTEXT = 256


def toy_engine(**settings):
    """A real engine over a small module, which writes letters."""
    engine = LocalEngine(validate(LocalSettings, settings))
    return engine.for_module(toy_module(CONTEXT), ToyTokenizer(), samplers(), CONTEXT)


class Server:
    """The server over an engine, in a thread of its own, as long as the `with` lasts."""

    def __init__(self, engine, **settings):
        self.engine = engine
        settings = validate(FastapiSettings, {"port": 0, "log_requests": False, **settings})
        self.frontend = FastapiFrontend(settings)
        self.failed = None

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.stopping = asyncio.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        self.root = until(self._address, 20)
        self.url = f"{self.root}/v1"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.loop.close()
        if self.failed is not None:
            raise self.failed

    def _run(self):
        async def whole():
            try:
                await self.frontend.serve(self.engine, self.stopping)
            finally:
                await self.engine.close()

        try:
            self.loop.run_until_complete(whole())
        except Exception as error:  # noqa: BLE001  # the test's thread raises it
            self.failed = error

    def _address(self):
        if self.failed is not None:
            raise self.failed
        return self.frontend.url


def free_port():
    """A port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(holds, seconds=10):
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)
    return found
