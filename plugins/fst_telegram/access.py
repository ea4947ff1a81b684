"""Access: who may use the bot, and when a group's message is meant for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiogram import BaseMiddleware
from aiogram.types import CallbackQuery, Chat, InlineQuery, Message, TelegramObject, User
from aiogram.utils.i18n import gettext as _

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fst_telegram.replies import Replies
    from fst_telegram.settings import TelegramSettings

__all__ = ["Access", "Seldom", "meant"]

_log = logging.getLogger(__name__)


class Seldom:
    """Says when something may be said again, to each only once in a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said: dict[object, float] = {}

    def __call__(self, to: object) -> bool:
        """Return whether it may be said now, and note that it is."""
        now = asyncio.get_running_loop().time()
        if now - self._said.get(to, float("-inf")) < self._seconds:
            return False
        self._said.pop(to, None)
        self._said[to] = now
        if len(self._said) > 10_000:
            del self._said[next(iter(self._said))]
        return True


class Access(BaseMiddleware):
    """Lets through what people who may use the bot mean for it, with its text as `said`."""

    def __init__(self, settings: TelegramSettings, replies: Replies) -> None:
        self._public = settings.public
        self._users = frozenset((*settings.allowed_users, *settings.admins))
        self._chats = set(settings.allowed_chats)
        self._replies = replies
        self._once_an_hour = Seldom(3600.0)

    def allows(self, user: int, chat: int | None = None) -> bool:
        """Return whether a user may use the bot in a chat; names, which can be taken, do not count."""
        return self._public or user in self._users or chat in self._chats

    def moved(self, old: int, new: int) -> None:
        """Allow the supergroup that an allowed group became."""
        if old in self._chats:
            self._chats.add(new)
            _log.warning("the group %d became %d: write that into allowed_chats", old, new)

    async def __call__(
        self,
        handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
        event: TelegramObject,
        data: dict[str, Any],
    ) -> Any:
        """Pass an event on, or leave it."""
        user: User | None = data.get("event_from_user")
        chat: Chat | None = data.get("event_chat")
        if isinstance(event, Message) and event.migrate_to_chat_id:
            return await handler(event, data)  # Telegram itself says so
        if user is None or user.is_bot:
            return None
        if isinstance(event, Message):
            said = meant(event, await data["bot"].me())
            if said is None:
                return None
            data["said"] = said
        if not self.allows(user.id, chat.id if chat else None):
            self._refuse(event, user)
            return None
        return await handler(event, data)

    def _refuse(self, event: TelegramObject, user: User) -> None:
        """Tell somebody once an hour that they may not, and their id, by which they can be allowed."""
        if isinstance(event, CallbackQuery):
            self._replies.notice(event)
        elif isinstance(event, InlineQuery):
            self._replies.results(event, [])
        elif isinstance(event, Message) and self._once_an_hour(event.chat.id):
            _log.info("user %d may not use the bot", user.id)
            text = _("I may not talk with you. Who runs me can allow it; your id is {id}.")
            self._replies.say(event, text.format(id=user.id))


def meant(message: Message, me: User) -> str | None:
    """Return a message's text without the mention of the bot; None if it is for others."""
    text = message.text or ""
    if message.chat.type == "private":
        return text
    if message.chat.type == "channel":
        return None
    if text.startswith("/"):
        _command, _at, whose = text.split(maxsplit=1)[0].partition("@")
        return text if not whose or whose.lower() == f"{me.username}".lower() else None
    replied = message.reply_to_message
    is_meant = bool(replied and replied.from_user and replied.from_user.id == me.id)
    for entity in message.entities or ():
        found = entity.extract_from(message.text or "")
        named = entity.type == "mention" and found.lower() == f"@{me.username}".lower()
        if named or (entity.user is not None and entity.user.id == me.id):
            is_meant = True
            text = text.replace(found, "", 1)
    return text.strip() if is_meant else None
