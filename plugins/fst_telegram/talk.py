"""The talk: what a bot is made of, put together."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from aiogram import Bot, Dispatcher
from aiogram.methods import SendMessage, SetMyCommands
from aiogram.utils.i18n import SimpleI18nMiddleware
from aiogram.utils.i18n import gettext as _

from fst_telegram.access import Access
from fst_telegram.answering import Answering
from fst_telegram.answers import Answers
from fst_telegram.background import Background
from fst_telegram.budget import Budget
from fst_telegram.handlers import Handlers
from fst_telegram.inline import Inline
from fst_telegram.modes import Modes
from fst_telegram.outbox import Outbox
from fst_telegram.replies import Replies
from fst_telegram.texts import LANGUAGES, commands, i18n
from fst_telegram.updates import Updates

if TYPE_CHECKING:
    import asyncio

    from fst_core import Engine
    from fst_telegram.settings import TelegramSettings
    from fst_telegram.store import Store

__all__ = ["Talk"]

_log = logging.getLogger(__name__)


class Talk:
    """A bot between its start and its end; what it does in the background is among the tasks."""

    def __init__(
        self,
        settings: TelegramSettings,
        bot: Bot,
        store: Store,
        engine: Engine,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._i18n = i18n()
        self.settings = settings
        self.store = store
        self.engine = engine
        self.background = Background(tasks)
        self.budget = Budget(store, settings.daily_tokens)
        self.modes = Modes(settings, engine)
        self.outbox = Outbox(bot, settings, self.moved)
        self.replies = Replies(self.outbox, self.background)
        self.access = Access(settings, self.replies)
        self.answers = Answers(settings, self.background)
        self.answering = Answering(self)
        self.updates = Updates(bot, self._dispatcher(), store)

    def _dispatcher(self) -> Dispatcher:
        dispatcher = Dispatcher(disable_fsm=True)
        dispatcher.include_router(Handlers(self).router())
        if self.settings.inline:
            dispatcher.inline_query.register(Inline(self).query)
        SimpleI18nMiddleware(self._i18n).setup(dispatcher)
        for observer in (dispatcher.message, dispatcher.callback_query, dispatcher.inline_query):
            observer.outer_middleware(self.access)
        return dispatcher

    async def begin(self) -> None:
        """Tell who was interrupted when the bot last ended, and set the menu."""
        cut = {answer.chat: answer for answer in await self.store.interrupted()}
        for chat, answer in cut.items():
            with self._i18n.context(), self._i18n.use_locale(answer.language):
                text = _("I was interrupted before the answer was whole. /retry")
            call = SendMessage(chat_id=chat, message_thread_id=answer.thread, text=text)
            self.replies.send(call, chat, partial(self.store.interrupted_told, chat, answer.id))
        for chat, language in (await self.store.lost()).items():
            if chat not in cut and self.access.allows(chat):
                with self._i18n.context(), self._i18n.use_locale(language):
                    text = _("I was interrupted before I read your last message. Send it again.")
                self.replies.send(
                    SendMessage(chat_id=chat, text=text), chat, partial(self.store.told, chat)
                )
        for language in LANGUAGES:
            with self._i18n.context(), self._i18n.use_locale(language):
                menu = SetMyCommands(
                    commands=commands(),
                    language_code=None if language == self._i18n.default_locale else language,
                )
            self.background.start(self.outbox.call, menu)

    def stop(self) -> None:
        """End what is still being written."""
        count = self.answers.stop("shutdown")
        _log.info("%d answers are cut off", count)

    async def moved(self, old: int, new: int) -> None:
        """Give a supergroup what the group had that became it; the messages of answers stay there."""
        self.outbox.follow(old, new)
        self.answers.stop("moved", chat=old)
        self.access.moved(old, new)
        await self.store.move(old, new)
