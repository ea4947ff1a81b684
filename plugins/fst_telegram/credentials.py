"""Credentials: read from variables or files, and kept out of errors."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from aiogram.client.session.middlewares.base import BaseRequestMiddleware
from aiogram.exceptions import (
    AiogramError,
    ClientDecodeError,
    DetailedAiogramError,
    TelegramNetworkError,
)
from aiogram.utils.token import TokenValidationError, validate_token

from fst_core.errors import UserError

if TYPE_CHECKING:
    from aiogram import Bot
    from aiogram.client.session.middlewares.base import NextRequestMiddlewareType
    from aiogram.methods import TelegramMethod

    from fst_telegram.settings import TelegramSettings, WebhookSettings

__all__ = ["CleanErrors", "UnknownToken", "read_secret", "read_token", "token_place"]


class UnknownToken(UserError):
    """Telegram does not know the bot's token."""

    def __init__(self, place: str = "the bot's token") -> None:
        super().__init__(f"{place}: Telegram does not know this token; BotFather tells the bot's")


def token_place(settings: TelegramSettings) -> str:
    """Return where the bot's token comes from."""
    if settings.token_file is not None:
        return f"token_file {settings.token_file}"
    return f"token_env: the variable {settings.token_env}"


def read_token(settings: TelegramSettings) -> str:
    """Return the bot's token.

    Raises:
        UserError: there is none, or it is no token; the message does not hold it.
    """
    place = token_place(settings)
    if settings.token_file is not None:
        try:
            token = settings.token_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{place}: cannot be read: {type(error).__name__}") from None
    else:
        token = os.environ.get(settings.token_env, "").strip()
    if not token:
        raise UserError(f"{place} is not set. BotFather gives a token: https://t.me/BotFather")
    try:
        validate_token(token)
    except TokenValidationError:
        raise UserError(f"{place} holds no token, which reads as 123456:letters") from None
    return token


def read_secret(settings: WebhookSettings) -> str:
    """Return the secret by which Telegram is known at the webhook.

    Raises:
        UserError: there is none, or Telegram would not take it.
    """
    secret = os.environ.get(settings.secret_env, "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,256}", secret):
        raise UserError(
            f"webhook.secret_env: the variable {settings.secret_env} must hold 16 to 256 of the "
            "characters A-Z, a-z, 0-9, _ and -; for example: openssl rand -hex 32"
        )
    return secret


class CleanErrors(BaseRequestMiddleware):
    """Takes the token, which is part of every address, and contents out of aiogram's errors."""

    async def __call__(
        self, make_request: NextRequestMiddlewareType[Any], bot: Bot, method: TelegramMethod[Any]
    ) -> Any:
        """Make a request; raise what it raises without its cause."""
        try:
            return await make_request(bot, method)
        except ClientDecodeError as error:
            failed = type(error.original).__name__
            raise AiogramError(f"an answer that cannot be read: {failed}") from None
        except OSError as error:
            raise TelegramNetworkError(method, type(error).__name__) from None
        except DetailedAiogramError as error:
            error.message = error.message.replace(bot.token, "TOKEN")
            error.args, error.__cause__, error.__context__ = (), None, None
            raise error from None
