"""Answering: from what somebody asked to the answer in their chat."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING

from aiogram.exceptions import AiogramError, TelegramBadRequest

from fst_core import Request
from fst_core.errors import EngineBusy, FstError, PromptTooLong, UserError, one_line
from fst_telegram.display import Display
from fst_telegram.keyboards import under_answer
from fst_telegram.outbox import ChatGone
from fst_telegram.prompts import conversation, shortened
from fst_telegram.texts import end

if TYPE_CHECKING:
    from fst_telegram.answers import Running
    from fst_telegram.prompts import Prompt
    from fst_telegram.store import Answer
    from fst_telegram.talk import Talk

__all__ = ["Answering"]

_log = logging.getLogger(__name__)


class Answering:
    """Lets the engine write, shows it, and remembers it."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def run(self, running: Running) -> None:
        """Answer, whatever happens; what could not be shown stays "running" in the store."""
        answer = running.answer
        try:
            async with self._talk.answers.place(answer.user):
                display = Display(self._talk.outbox, self._talk.settings, answer)
                state = await self._write(running, display)
                await self._talk.store.save(answer.id, display.text.rstrip())
                if state != "gone":
                    begun = bool(display.text.strip())
                    keyboard = under_answer(answer.id, 0) if begun else None
                    await display.finish(end(state, begun=begun), keyboard)
                await self._talk.store.finish(answer.id, state)
            _log.info("answer %d for user %d: %s", answer.id, answer.user, state)
        except ChatGone:
            await self._talk.store.finish(answer.id, "gone")
            _log.info("answer %d for user %d: the chat is gone", answer.id, answer.user)
        except AiogramError as error:
            # What Telegram refuses it will refuse again; the rest is told at the next start.
            if isinstance(error, TelegramBadRequest):
                await self._talk.store.finish(answer.id, "refused")
            _log.warning("answer %d cannot be shown: %s", answer.id, type(error).__name__)
        except Exception as error:  # noqa: BLE001  # one answer's failure is no other's
            _log.error(
                "answer %d for user %d failed: %s", answer.id, answer.user, type(error).__name__
            )

    async def _write(self, running: Running, display: Display) -> str:
        """Write while the display shows it; return how it ended."""

        async def follow() -> None:
            try:
                await display.follow()
            except ChatGone:
                running.stop("gone")

        following = asyncio.create_task(follow())
        try:
            state = await running.work(self._generate(running.answer, display))
            display.end()
            await following  # what comes next must come after a call that is on its way
        finally:
            following.cancel()
            await asyncio.wait([following])
        return state

    async def _generate(self, answer: Answer, display: Display) -> str:
        """Generate into the display; return how it ended."""
        tokens = 0
        try:
            request = await self._request(answer)
            async with asyncio.timeout(None) as silence:
                clock = asyncio.get_running_loop().time
                silence.reschedule(clock() + self._talk.settings.engine_seconds)
                async with aclosing(self._talk.engine.stream(request)) as chunks:
                    async for chunk in chunks:
                        silence.reschedule(clock() + self._talk.settings.engine_seconds)
                        tokens += len(chunk.ids) or bool(chunk.text)
                        display.grow(chunk.text)
        except TimeoutError:
            return "silent"
        except EngineBusy:
            return "busy" if not display.text else "failed"
        except PromptTooLong:
            _log.info("answer %d was refused: its prompt is too long", answer.id)
            return "too long"
        except UserError as error:
            # Its words may be those of the prompt.
            _log.info("answer %d was refused: %s", answer.id, type(error).__name__)
            return "refused"
        except FstError as error:
            # A server that is asked may repeat the prompt in its words.
            _log.warning("answer %d: the engine failed: %s", answer.id, type(error).__name__)
            _log.debug("answer %d: %s", answer.id, one_line(error))
            return "failed"
        except Exception as error:  # noqa: BLE001  # an engine's bug is told, and the bot goes on
            _log.error("answer %d: the engine raised %s", answer.id, type(error).__name__)
            return "failed"
        finally:
            await self._talk.budget.spend(answer.user, tokens)
        return "done"

    async def _request(self, answer: Answer) -> Request:
        _, chosen = await self._talk.store.chat(answer.chat)
        new = int(chosen.get("length", self._talk.settings.max_new_tokens))
        new = min(new, self._talk.settings.max_new_tokens_bound)
        left = await self._talk.budget.left(answer.user)
        if left is not None:
            new = max(1, min(new, left))
        prompt: Prompt = answer.prompt
        if answer.mode == "chat":
            before = await self._talk.store.turns(answer.chat, answer.conversation, answer.turn)
            prompt = conversation(before, answer.prompt)
        return Request(
            prompt=await shortened(self._talk.engine, prompt, new),
            max_new_tokens=new,
            seed=secrets.randbelow(2**31),
            parameters=self._talk.modes.parameters(chosen),
        )
