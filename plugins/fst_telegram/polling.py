"""Polling: the bot asks Telegram for updates."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiogram.exceptions import (
    AiogramError,
    TelegramBadRequest,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramUnauthorizedError,
)
from aiogram.methods import DeleteWebhook, TelegramMethod

from fst_core.errors import UserError, one_line
from fst_telegram.credentials import UnknownToken

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiogram import Bot

    from fst_telegram.updates import Updates

__all__ = ["persist", "poll"]

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_SECONDS: Final = 30
"""How long Telegram keeps a question for updates."""


class _GetUpdates(TelegramMethod[list[dict[str, Any]]]):
    """Gets updates as they come: one that cannot be read must not keep the others back."""

    __returning__ = list[dict[str, Any]]
    __api_method__ = "getUpdates"

    offset: int | None = None
    limit: int | None = None
    timeout: int | None = None
    allowed_updates: list[str] | None = None


async def poll(bot: Bot, updates: Updates, allowed: list[str], stopping: asyncio.Event) -> None:
    """Take updates until told to stop; then confirm what was taken.

    Raises:
        UnknownToken: Telegram does not know the token.
    """
    await persist(lambda: bot(DeleteWebhook()), stopping)
    offset: int | None = None

    def get() -> Coroutine[Any, Any, list[dict[str, Any]]]:
        method = _GetUpdates(offset=offset, timeout=_SECONDS, allowed_updates=allowed)
        return bot(method, request_timeout=2 * _SECONDS)

    while not stopping.is_set():
        for update in await persist(get, stopping) or ():
            taken = await updates.take(update)
            offset = offset if taken is None else taken + 1
    if offset is not None:
        with suppress(AiogramError, TimeoutError):
            async with asyncio.timeout(5):
                await bot(_GetUpdates(offset=offset, limit=1, timeout=0))


async def persist(
    call: Callable[[], Coroutine[Any, Any, _Result]], stopping: asyncio.Event
) -> _Result | None:
    """Make a call until it succeeds, and return its result; None when told to stop.

    Raises:
        UserError: Telegram refuses what the settings say.
        UnknownToken: Telegram does not know the token.
    """
    delay = 0.5
    while not stopping.is_set():
        try:
            return await _unless(stopping, call())
        except (TelegramUnauthorizedError, TelegramNotFound):
            raise UnknownToken from None
        except TelegramBadRequest as error:
            raise UserError(f"Telegram refuses the bot's settings: {error.message}") from None
        except AiogramError as error:
            delay = min(delay * 2, 30.0)
            if isinstance(error, TelegramRetryAfter):
                delay = float(error.retry_after)
            _log.warning("%s; again in %g s", one_line(error), delay)
            await _unless(stopping, asyncio.sleep(delay))
    return None


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, _Result]) -> _Result | None:
    """Await something; give it up when told to stop."""
    working = asyncio.create_task(work)
    told = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([working, told], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, told):
            task.cancel()
            with suppress(asyncio.CancelledError, AiogramError):
                await task
