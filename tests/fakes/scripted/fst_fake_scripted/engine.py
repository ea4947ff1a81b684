"""The engine `scripted`: words of the last message such as `tokens=20 speed=50` say what it does.

tokens   how many words it says (5), each an id; `max_new_tokens` cuts them
speed    words a second (as fast as it can)
first    seconds before the first one
name     of the words: name=rose gives "rose1 rose2 ..." ("word")
say      one of TEXTS instead, a word an id
fail     one of FAILURES, after so many words as `after` says (0)

Times are those of the process's clock.
"""

import asyncio
import json
import re
import time
from itertools import count

from fst_core import Chunk, Engine
from fst_core.errors import EngineBusy, FstError, UnsupportedParameter, UserError

_PARAGRAPH = (
    "Ещё раз: «съешь же ещё этих мягких французских булок», сказал \N{BEAR FACE} и улыбнулся. "
    "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{GRINNING FACE} It was *not* the end_of_it, <b>she</b> said.\n"
)
_CODE = "```python\n" + "\n".join(f"x_{n} = [{n}] * {n}  # ёлка {n}" for n in range(40)) + "\n```\n"
TEXTS = {
    "essay": "\n".join(f"{n}. {_PARAGRAPH * 3}\n{_CODE}" for n in range(1, 9)),
    "markup": "1. _*[]()~`>#+-=|{}.!\\ *bold **bolder _under __more <b>tag <i & &amp; [a](b ```c",
    "nothing": "",
    "spaces": " \n ",
    "letters": "x" * 9000,
    "faces": "\N{GRINNING FACE}" * 4500,
}
SECRET = "http://10.1.2.3:8000/v1 refuses the key sk-0123456789"
"""What errors say that no person may read."""
FAILURES = {
    "busy": lambda: EngineBusy(f"the server is busy: {SECRET}"),
    "broken": lambda: FstError(SECRET),
    "wrong": lambda: UserError(f"the prompt does not fit: {SECRET}"),
    "unsupported": lambda: UnsupportedParameter("temperature", SECRET),
    "bug": lambda: RuntimeError(SECRET),
}


class ScriptedEngine(Engine):
    def __init__(self, settings):
        self.settings = settings
        self._numbers = count(1)
        self._slots = asyncio.Semaphore(settings.slots)
        self._waiting = 0

    def for_module(self, module, tokenizer, samplers, context_length, *, supports_cache=True):
        return self

    def for_artefact(self, directory, samplers):
        return self

    def describe(self):
        return {
            "name": "scripted", "context_length": self.settings.context_length, "device": "cpu",
            "dtype": "float32", "chat": self.settings.chat, "alive": True,
            "sampling": {
                "temperature": {"type": "number", "minimum": 0, "default": 1.0},
                "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.9},
            },
        }  # fmt: skip

    async def stream(self, request):
        number = next(self._numbers)
        messages = [] if isinstance(request.prompt, str) else request.prompt
        self._note(
            number, "asked",
            prompt=request.prompt if not messages else [[m.role, m.content] for m in messages],
            max_new_tokens=request.max_new_tokens, parameters=dict(request.parameters), seed=request.seed,
        )  # fmt: skip
        if self._slots.locked() and self._waiting >= self.settings.waiting:
            self._note(number, "refused")
            raise EngineBusy("too many requests are waiting")
        said, ended = [], "left"
        try:
            self._waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self._waiting -= 1
            try:
                async for chunk in self._speak(request, _text(request.prompt)):
                    if not said:
                        self._note(number, "first")
                    said.append(chunk.text)
                    yield chunk
                ended = "ended"
            finally:
                self._slots.release()
        except Exception:
            ended = "failed"
            raise
        finally:
            self._note(number, ended, text="".join(said), tokens=len([t for t in said if t]))

    async def _speak(self, request, text):
        told = dict(re.findall(r"\b(tokens|speed|first|name|say|fail|after)=(\S+)", text))
        words = [f"{told.get('name', 'word')}{n + 1} " for n in range(int(told.get("tokens", 5)))]
        if "say" in told:
            words = re.findall(r"\s*\S+|\s+$", TEXTS[told["say"]])
        limit = len(words) if request.max_new_tokens is None else request.max_new_tokens
        speed, after = float(told.get("speed", "inf")), int(told.get("after", 0))
        await asyncio.sleep(float(told.get("first", 0)))
        began = time.monotonic()
        prompt_tokens = len(await self.encode(request.prompt))
        for n, word in enumerate(words[:limit]):
            if n == after:
                await _fail(told.get("fail"))
            await asyncio.sleep(max(0, began + n / speed - time.monotonic()))
            yield Chunk(text=word, ids=(n % 256,), prompt_tokens=prompt_tokens if n == 0 else None)
        if after >= len(words[:limit]):
            await _fail(told.get("fail"))
        yield Chunk(finish_reason="length" if limit < len(words) else "stop")

    async def encode(self, prompt):
        if isinstance(prompt, str):
            return tuple(prompt.encode())
        return tuple("\n".join(m.content for m in prompt).encode())

    async def decode(self, ids):
        return bytes(ids).decode(errors="replace")

    def _note(self, number, event, **fields):
        if self.settings.log is not None:
            with self.settings.log.open("a", encoding="utf-8") as log:
                log.write(
                    json.dumps({"id": number, "event": event, "at": time.monotonic(), **fields})
                    + "\n"
                )


async def _fail(how):
    if how == "hang":
        await asyncio.sleep(10**6)
    elif how is not None:
        error = FAILURES[how]()
        raise error


def _text(prompt):
    """Return what was said last."""
    return prompt if isinstance(prompt, str) else prompt[-1].content
