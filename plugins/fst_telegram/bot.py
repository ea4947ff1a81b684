"""The frontend `telegram`: a bot from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer

from fst_core import Frontend
from fst_telegram.credentials import CleanErrors, UnknownToken, read_secret, read_token, token_place
from fst_telegram.log import logging_to_stderr
from fst_telegram.polling import persist, poll
from fst_telegram.store import Store
from fst_telegram.talk import Talk
from fst_telegram.updates import Updates, allowed_updates
from fst_telegram.webhook import Webhook

if TYPE_CHECKING:
    from fst_core import Engine
    from fst_telegram.settings import TelegramSettings

__all__ = ["TelegramFrontend"]

_log = logging.getLogger(__name__)


class TelegramFrontend(Frontend):
    """A bot that people talk with on Telegram (core.telegram.org/bots/api, by aiogram)."""

    def __init__(self, settings: TelegramSettings) -> None:
        """Read the secrets, so that a missing one is told before a model is loaded.

        Raises:
            UserError: a secret is missing, or cannot be one.
        """
        self.settings = settings
        self._token = read_token(settings)
        self._secret = "" if settings.webhook is None else read_secret(settings.webhook)

    async def serve(self, engine: Engine, stopping: asyncio.Event) -> None:
        """Talk until `stopping` is set; then finish what is being written, as far as there is time.

        Raises:
            UserError: the state cannot be opened, the webhook's port is taken, or Telegram does not
                know the token.
        """
        settings = self.settings
        server = PRODUCTION
        if settings.api_base is not None:
            server = TelegramAPIServer.from_base(settings.api_base)
        session = AiohttpSession(api=server)
        session.middleware(CleanErrors())
        bot = Bot(self._token, session=session)
        with logging_to_stderr():
            try:
                async with Store.open(settings.state) as store:
                    if await persist(bot.me, stopping):
                        await self._talk(bot, store, engine, stopping)
            except TimeoutError:
                _log.warning("no time to end all answers; they are told at the next start")
            except (UnknownToken, ExceptionGroup) as error:
                first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                if isinstance(first, UnknownToken):
                    raise UnknownToken(token_place(settings)) from None
                raise first from None
            finally:
                await session.close()

    async def _talk(self, bot: Bot, store: Store, engine: Engine, stopping: asyncio.Event) -> None:
        """Talk until told to stop, and then for the drain time.

        Raises:
            TimeoutError: it was not enough to end all answers.
            ExceptionGroup: of what `_listen` raises.
        """
        loop, drain = asyncio.get_running_loop(), self.settings.drain_seconds
        late: asyncio.TimerHandle | None = None
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
                talk = Talk(self.settings, bot, store, engine, tasks)
                await self._greet(bot)
                await talk.begin()
                await self._listen(bot, talk.updates, stopping)
                limit.reschedule(loop.time() + drain)
                # What is still written then is cut off, so that there is time to show it.
                late = loop.call_later(0.75 * drain, talk.stop)
        finally:
            if late is not None:
                late.cancel()

    async def _greet(self, bot: Bot) -> None:
        """Tell who started the bot where it is, and whether nobody can use it."""
        me, settings = await bot.me(), self.settings
        print(f"serve: https://t.me/{me.username}", file=sys.stderr, flush=True)  # noqa: T201  # for who started it
        if not (settings.public or settings.allowed_users or settings.allowed_chats):
            _log.warning("only admins may use the bot: see allowed_users, allowed_chats, public")

    async def _listen(self, bot: Bot, updates: Updates, stopping: asyncio.Event) -> None:
        """Take updates until told to stop.

        Raises:
            UserError: the webhook's port is taken.
            UnknownToken: Telegram does not know the token.
        """
        allowed = allowed_updates(inline=self.settings.inline)
        if self.settings.webhook is None:
            await poll(bot, updates, allowed, stopping)
        else:
            webhook = Webhook(self.settings.webhook, self._secret, updates)
            await webhook.listen(bot, allowed, stopping)
