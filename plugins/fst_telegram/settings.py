"""What a pipeline may write in `[[serve]]` for the frontend `telegram`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from fst_core import Settings

__all__ = ["TelegramSettings", "WebhookSettings"]

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ADDRESS = r"^https?://[^/?#\s]+(/[^?#\s]*)?$"


class WebhookSettings(Settings):
    """Where Telegram delivers updates, instead of being asked for them."""

    url: str = Field(pattern=_ADDRESS)
    """The public address, as "https://example.org/telegram"; its path is the listener's."""
    host: str = "127.0.0.1"
    """Where the bot listens; a proxy with a certificate stands before it."""
    port: int = Field(8443, ge=0, le=65535)
    """The port on which it listens."""
    secret_env: str = Field("TELEGRAM_WEBHOOK_SECRET", pattern=_VARIABLE)
    """The variable with the secret by which Telegram is known: 16 to 256 of A-Z, a-z, 0-9, _ and -."""


class TelegramSettings(Settings):
    """Settings of the frontend `telegram`; nobody may use the bot until they say who."""

    token_env: str = Field("TELEGRAM_TOKEN", pattern=_VARIABLE)
    """The name of the environment variable that holds the bot's token."""
    token_file: Path | None = None
    """A file that holds the token instead, as systemd's credentials are."""
    api_base: str | None = Field(None, pattern=_ADDRESS)
    """The address of a Bot API server of your own; by default Telegram's."""
    allowed_users: tuple[int, ...] = ()
    """Numeric ids of those who may use the bot; the bot tells strangers theirs."""
    allowed_chats: tuple[int, ...] = ()
    """Numeric ids of groups in which everybody may use it."""
    admins: tuple[int, ...] = ()
    """Numeric ids of those who may use it and see /stats."""
    public: bool = False
    """Whether everybody may use it."""
    running_per_user: int = Field(1, ge=1)
    """How many answers of one user are written at once."""
    waiting_per_user: int = Field(1, ge=0)
    """How many more of them may wait; further messages are refused."""
    daily_tokens: int | None = Field(None, ge=1)
    """How many tokens a user gets a day, which begins at midnight UTC; no limit by default."""
    max_new_tokens: int = Field(512, ge=1)
    """The length of an answer in tokens, unless a chat's settings say otherwise."""
    max_new_tokens_bound: int = Field(4096, ge=1)
    """The greatest length that a chat may choose."""
    state: Path = Path("telegram.sqlite3")
    """The SQLite file in which the bot remembers."""
    webhook: WebhookSettings | None = None
    """Lets Telegram deliver updates; by default the bot asks for them, which needs no address."""
    inline: bool = False
    """Whether it also answers "@bot text" in any chat; BotFather must allow it too."""
    drain_seconds: float = Field(20.0, gt=0)
    """How long it may take to stop; answers are written for three quarters of it."""
    engine_seconds: float = Field(120.0, gt=0)
    """How long the engine may be silent; then the answer ends with a notice."""
    draft_seconds: float = Field(1.0, gt=0)
    """The least time between two calls to a private chat, which Telegram limits to one a second."""
    draft_renew_seconds: float = Field(20.0, gt=0, lt=30)
    """When a draft without news is shown again; Telegram takes it away after 30 seconds."""
    edit_seconds: float = Field(3.0, gt=0)
    """The least time between two calls to a group, which Telegram limits to 20 a minute."""

    @model_validator(mode="after")
    def _length_is_bounded(self) -> Self:
        if self.max_new_tokens > self.max_new_tokens_bound:
            raise ValueError(
                f"max_new_tokens = {self.max_new_tokens} is more than "
                f"max_new_tokens_bound = {self.max_new_tokens_bound}"
            )
        return self
