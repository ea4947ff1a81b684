"""The webhook: Telegram delivers updates to a listener behind a proxy."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiogram.methods import SetWebhook
from aiohttp import web

from fst_core.errors import UserError
from fst_telegram.polling import persist

if TYPE_CHECKING:
    import asyncio

    from aiogram import Bot

    from fst_telegram.settings import WebhookSettings
    from fst_telegram.updates import Updates

__all__ = ["Webhook"]

_HEADER: Final = "X-Telegram-Bot-Api-Secret-Token"
_LARGEST: Final = 2**20
"""Bytes of an update."""


class Webhook:
    """Takes updates that come with the secret.

    Where a request comes from is not asked: behind a proxy anybody can claim anything.
    """

    def __init__(self, settings: WebhookSettings, secret: str, updates: Updates) -> None:
        self._settings = settings
        self._secret = secret
        self._updates = updates

    async def listen(self, bot: Bot, allowed: list[str], stopping: asyncio.Event) -> None:
        """Listen, and let Telegram deliver, until told to stop.

        Raises:
            UserError: the port is taken.
            UnknownToken: Telegram does not know the token.
        """
        settings = self._settings
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_post(urlsplit(settings.url).path or "/", self._receive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5.0)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, settings.host, settings.port).start()
            except OSError as error:
                where = f"{settings.host}:{settings.port}"
                raise UserError(f"webhook: cannot listen on {where}: {error.strerror}") from None
            hook = SetWebhook(url=settings.url, secret_token=self._secret, allowed_updates=allowed)
            await persist(lambda: bot(hook), stopping)
            await stopping.wait()
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        given = request.headers.get(_HEADER, "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._secret.encode()):
            return web.Response(status=401)
        try:
            said = await request.json()
        except (ValueError, RecursionError):
            return web.Response(status=400)
        # An update that cannot be read must not come again and again.
        await self._updates.take(said)
        return web.Response()
