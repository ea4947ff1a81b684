"""Updates: each is handled once, in the order in which they come, whatever they hold."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from aiogram.types import Update
from aiogram.types.update import UpdateTypeLookupError
from pydantic import ValidationError

if TYPE_CHECKING:
    from aiogram import Bot, Dispatcher

    from fst_telegram.store import Store

__all__ = ["Updates", "allowed_updates"]

_log = logging.getLogger(__name__)


def allowed_updates(*, inline: bool) -> list[str]:
    """Return the types of updates that the bot wants."""
    wanted = ["message", "callback_query", "stopped_message_generation"]
    return [*wanted, "inline_query"] if inline else wanted


class Updates:
    """Hands updates to the dispatcher, one after the other: no handler waits for anything long."""

    def __init__(self, bot: Bot, dispatcher: Dispatcher, store: Store) -> None:
        self._bot = bot
        self._dispatcher = dispatcher
        self._store = store
        self._lock = asyncio.Lock()

    async def take(self, said: Any) -> int | None:
        """Handle an update as Telegram sent it, unless it was handled; return its id if it has one."""
        id_ = said.get("update_id") if isinstance(said, dict) else None
        if not isinstance(id_, int) or not 0 <= id_ < 2**62:
            _log.warning("something came that is no update")
            return None
        async with self._lock:
            if await self._store.take(id_, *_private(said)):
                await self._handle(said, id_)
                await self._store.done(id_)
        return id_

    async def _handle(self, said: dict[str, Any], id_: int) -> None:
        try:
            update = Update.model_validate(said, context={"bot": self._bot})
            kind = update.event_type
        except (ValidationError, RecursionError, UpdateTypeLookupError) as error:
            _log.warning("update %d cannot be read: %s", id_, type(error).__name__)
            return
        try:
            await self._dispatcher.feed_update(self._bot, update)
        except Exception as error:  # noqa: BLE001  # one update's failure is no other's
            _log.error("update %d, a %s, failed: %s", id_, kind, type(error).__name__)


def _private(said: dict[str, Any]) -> tuple[int | None, str]:
    """Return the private chat that an update is a message in, and its person's language."""
    try:
        message = said["message"]
        if message["chat"]["type"] == "private" and isinstance(message["chat"]["id"], int):
            return message["chat"]["id"], str(message["from"].get("language_code"))[:2]
    except (KeyError, TypeError, AttributeError):
        pass
    return None, ""
