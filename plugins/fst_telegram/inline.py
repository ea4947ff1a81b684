"""Inline mode: "@bot text" in any chat offers the text with its continuation."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Final

from aiogram.types import InlineQueryResultArticle, InputTextMessageContent

from fst_core import Message, Request
from fst_core.errors import FstError
from fst_telegram.formatting import pieces
from fst_telegram.prompts import shortened

if TYPE_CHECKING:
    from aiogram.types import InlineQuery

    from fst_telegram.talk import Talk

__all__ = ["Inline"]

_log = logging.getLogger(__name__)

_SECONDS: Final = 15.0
"""Telegram forgets a query soon after."""
_LENGTH: Final = 64
"""The most tokens; nobody waits for more."""


class Inline:
    """Answers the last query of each user, once they have stopped typing."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._last: dict[int, asyncio.Task[None]] = {}

    async def query(self, inline_query: InlineQuery) -> None:
        """Take a query, which replaces the user's last one."""
        user = inline_query.from_user.id
        if user in self._last:
            self._last[user].cancel()
        task = self._last[user] = self._talk.background.start(self._answer, inline_query)
        task.add_done_callback(lambda done: self._last.get(user) is done and self._last.pop(user))

    async def _answer(self, query: InlineQuery) -> None:
        text, user = query.query.strip(), query.from_user.id
        await asyncio.sleep(self._talk.settings.draft_seconds)
        left = await self._talk.budget.left(user)
        if not text or left == 0:
            return self._talk.replies.results(query, [])
        new = min(_LENGTH, self._talk.settings.max_new_tokens, left or _LENGTH)
        chat = self._talk.modes.mode({}) == "chat"
        prompt = (Message("user", text),) if chat else await shortened(self._talk.engine, text, new)
        request = Request(prompt=prompt, max_new_tokens=new, seed=secrets.randbelow(2**31))
        try:
            async with asyncio.timeout(_SECONDS):
                generation = await self._talk.engine.generate(request)
        except (FstError, TimeoutError) as error:
            _log.info("an inline query of user %d: %s", user, type(error).__name__)
            return self._talk.replies.results(query, [])
        await self._talk.budget.spend(user, len(generation.ids))
        piece = pieces("" if chat else text, generation.text)[0]
        if not piece.text.strip():
            return self._talk.replies.results(query, [])
        article = InlineQueryResultArticle(
            id="1",
            title=generation.text.strip()[:60] or text,
            input_message_content=InputTextMessageContent(
                message_text=piece.text, entities=list(piece.entities) or None
            ),
        )
        return self._talk.replies.results(query, [article])
