"""The outbox: what a chat gets, one call at a time, never faster than Telegram allows."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from aiogram.exceptions import (
    AiogramError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramServerError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiogram import Bot
    from aiogram.methods import TelegramMethod

    from fst_telegram.settings import TelegramSettings

__all__ = ["ChatGone", "Outbox"]

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_ALL_SECONDS: Final = 1 / 25
"""The least time between two calls to any chats; Telegram takes about 30 a second of a bot."""
_ATTEMPTS: Final = 6
"""How often a message is tried when the network or Telegram fails."""
_CROWD: Final = 10
"""Messages that wait for a chat."""
_GONE: Final = (
    "chat not found", "user is deactivated", "kicked", "deactivated", "not a member", "rights to send",
    "peer_id_invalid", "chat_write_forbidden", "thread not found", "topic_closed", "topic_deleted",
)  # fmt: skip
"""What Telegram says of a chat in which nothing can be written any more."""


class ChatGone(Exception):
    """Telegram takes nothing for this chat: it blocked the bot, or is no more."""


class _Line:
    """Who waits to call a chat, and when it may be called."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.free = 0.0
        self.waiting = 0


class Outbox:
    """Calls chats in order, at their pace; a chat that refuses is left alone for as long as it says."""

    def __init__(
        self, bot: Bot, settings: TelegramSettings, moved: Callable[[int, int], Awaitable[None]]
    ) -> None:
        self._bot = bot
        self._private, self._group = settings.draft_seconds, settings.edit_seconds
        self._moved = moved
        self._became: dict[int, int] = {}
        """Groups that became supergroups, by their old ids."""
        self._lines: dict[int, _Line] = {}
        self._now = asyncio.get_running_loop().time
        self._next = 0.0

    async def send(
        self,
        chat: int,
        make: Callable[[], TelegramMethod[_Result] | None],
        *,
        keep: bool = True,
    ) -> _Result | Literal[True] | None:
        """Make a call when the chat may be called, and return its result; None if it was not made.

        Args:
            chat: whom it is for.
            make: gives the call at that time, or None if it is not needed any more.
            keep: whether it is tried again when it fails; otherwise it is let go.

        Raises:
            ChatGone: nothing can be sent to the chat.
            AiogramError: the call is refused, or has failed too often.
        """
        chat = self._became.get(chat, chat)
        line = self._lines.setdefault(chat, _Line())
        line.waiting += 1
        try:
            async with line.lock:
                return await self._send(chat, line, make, keep=keep)
        finally:
            line.waiting -= 1
            self._forget()

    def follow(self, chat: int, new: int) -> None:
        """Send to a supergroup from now on what is for the group that became it."""
        self._became[chat] = new

    def crowded(self, chat: int) -> bool:
        """Return whether so much waits for a chat that more would not be read."""
        line = self._lines.get(self._became.get(chat, chat))
        return line is not None and line.waiting >= _CROWD

    def refuses(self, chat: int) -> bool:
        """Return whether a chat must not be called now."""
        line = self._lines.get(chat)
        return line is not None and line.free > self._now() + self._interval(chat)

    async def _send(
        self,
        chat: int,
        line: _Line,
        make: Callable[[], TelegramMethod[_Result] | None],
        *,
        keep: bool,
    ) -> _Result | Literal[True] | None:
        plain, failures = False, 0
        while True:
            await self._turn(line)
            method = self._adapted(make(), plain=plain)
            if method is None:
                return None
            delay = self._interval(chat)
            try:
                return await self._bot(method)
            except TelegramRetryAfter as error:
                delay = error.retry_after + delay / 4  # its clock is not ours
            except TelegramMigrateToChat as error:
                if chat in self._became:
                    raise ChatGone("a supergroup does not become another") from None
                await self._moved(chat, error.migrate_to_chat_id)
            except (TelegramForbiddenError, TelegramBadRequest) as error:
                if "not modified" in error.message:
                    return True
                if plain or not _is_about_entities(error, method):
                    raise _meant(error) from None
                plain = True
            except (TelegramNetworkError, TelegramServerError) as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
                _log.warning("a call failed: %s", type(error).__name__)
                delay = max(delay, 2.0**failures / 2)
            finally:
                line.free = self._now() + delay
            if not keep and not plain:
                return None

    def _adapted(
        self, method: TelegramMethod[_Result] | None, *, plain: bool
    ) -> TelegramMethod[_Result] | None:
        """Return a call without entities, if it is to be plain, and to the chat as it is now."""
        changed: dict[str, Any] = {"entities": None} if plain else {}
        if (chat := getattr(method, "chat_id", None)) in self._became:
            changed["chat_id"] = self._became[chat]
        return method.model_copy(update=changed) if method and changed else method

    async def _turn(self, line: _Line) -> None:
        """Wait until a chat may be called, and until the bot may call anybody."""
        await asyncio.sleep(line.free - self._now())
        turn = max(self._next, self._now())
        self._next = turn + _ALL_SECONDS
        await asyncio.sleep(turn - self._now())

    def _interval(self, chat: int) -> float:
        return self._private if chat > 0 else self._group

    def _forget(self) -> None:
        """Forget the chats that may be called, once there are many."""
        if len(self._lines) > 1000:
            now = self._now()
            self._lines = {c: n for c, n in self._lines.items() if n.waiting or n.free > now}

    async def call(self, method: TelegramMethod[Any]) -> None:
        """Make a call that goes to no chat, as the answer to a pressed button; it may fail."""
        try:
            await self._bot(method)
        except AiogramError as error:
            _log.info("%s was refused: %s", type(method).__name__, type(error).__name__)


def _meant(error: TelegramAPIError) -> Exception:
    """Return the error, or that the chat is gone, if it says so."""
    said = error.message.lower()
    if isinstance(error, TelegramForbiddenError) or any(words in said for words in _GONE):
        return ChatGone(error.message)
    return error


def _is_about_entities(error: TelegramAPIError, method: TelegramMethod[Any]) -> bool:
    """Return whether a call may succeed without its entities."""
    return "can't parse entities" in error.message and bool(getattr(method, "entities", None))
