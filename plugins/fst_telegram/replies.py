"""Replies: short messages that handlers leave behind, sent while they do the next thing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiogram.exceptions import AiogramError
from aiogram.methods import (
    AnswerCallbackQuery,
    AnswerInlineQuery,
    EditMessageReplyMarkup,
    SendDocument,
    SendMessage,
    TelegramMethod,
)
from aiogram.types import BufferedInputFile, ReplyParameters

from fst_telegram.outbox import ChatGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiogram.types import (
        CallbackQuery,
        InaccessibleMessage,
        InlineKeyboardMarkup,
        InlineQuery,
        InlineQueryResultArticle,
        Message,
    )

    from fst_telegram.background import Background
    from fst_telegram.outbox import Outbox

__all__ = ["Replies"]

_log = logging.getLogger(__name__)


class Replies:
    """Sends in the background, so that no handler waits for Telegram."""

    def __init__(self, outbox: Outbox, background: Background) -> None:
        self._outbox = outbox
        self._background = background

    def say(self, to: Message, text: str, keyboard: InlineKeyboardMarkup | None = None) -> None:
        """Reply to a message; in a group, visibly."""
        self.send(
            SendMessage(
                chat_id=to.chat.id, message_thread_id=_topic(to), text=text, reply_markup=keyboard,
                reply_parameters=_reply(to),
            ),
            to.chat.id,
        )  # fmt: skip

    def file(self, to: Message, name: str, content: str) -> None:
        """Reply with a file."""
        document = BufferedInputFile(content.encode(), name)
        self.send(
            SendDocument(
                chat_id=to.chat.id, message_thread_id=_topic(to), document=document,
                reply_parameters=_reply(to),
            ),
            to.chat.id,
        )  # fmt: skip

    def buttons(self, of: Message | InaccessibleMessage, keyboard: InlineKeyboardMarkup) -> None:
        """Change the buttons under a message."""
        self.send(
            EditMessageReplyMarkup(
                chat_id=of.chat.id, message_id=of.message_id, reply_markup=keyboard
            ),
            of.chat.id,
        )

    def notice(self, query: CallbackQuery, text: str | None = None) -> None:
        """Answer a pressed button."""
        call = AnswerCallbackQuery(callback_query_id=query.id, text=text)
        self._background.start(self._outbox.call, call)

    def results(self, query: InlineQuery, found: list[InlineQueryResultArticle]) -> None:
        """Answer an inline query, for the person who asked alone."""
        call = AnswerInlineQuery(
            inline_query_id=query.id, results=[*found], cache_time=0, is_personal=True
        )
        self._background.start(self._outbox.call, call)

    def send(
        self,
        call: TelegramMethod[Any],
        chat: int,
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Make a call to a chat in the background; do something when it is done, or never can be."""

        async def whole() -> None:
            try:
                await self._outbox.send(chat, lambda: call)
            except ChatGone:
                _log.info("%s: the chat is gone", type(call).__name__)
            except AiogramError as error:
                _log.warning("%s failed: %s", type(call).__name__, type(error).__name__)
                return
            if then is not None:
                await then()

        if self._outbox.crowded(chat):
            _log.info("%s is dropped: too much waits for its chat", type(call).__name__)
        else:
            self._background.start(whole)


def _topic(message: Message) -> int | None:
    return message.message_thread_id if message.is_topic_message else None


def _reply(message: Message) -> ReplyParameters | None:
    """Return the reference to a message that is not the only one meant."""
    if message.chat.type == "private":
        return None
    return ReplyParameters(message_id=message.message_id, allow_sending_without_reply=True)
