"""A bot on Telegram."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_frontends() -> Iterator[Component]:
    """Offer the frontend."""
    yield Component(
        "telegram",
        f"{__name__}.bot:TelegramFrontend",
        "A bot on Telegram that continues texts and chats, remembers, and collects what people like.",
        settings=f"{__name__}.settings:TelegramSettings",
        needs=("aiogram", "aiohttp", "aiosqlite", "babel"),
    )
