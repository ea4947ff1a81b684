"""Keyboards: the buttons under answers and settings, and what they say when pressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiogram.filters.callback_data import CallbackData
from aiogram.types import InlineKeyboardMarkup
from aiogram.utils.i18n import gettext as _
from aiogram.utils.keyboard import InlineKeyboardBuilder

from fst_telegram.texts import mode_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from fst_telegram.modes import Modes

__all__ = ["Again", "Choose", "Vote", "settings_keyboard", "under_answer"]


class Again(CallbackData, prefix="again"):
    """Asks for an answer again."""

    answer: int


class Vote(CallbackData, prefix="vote"):
    """Says what somebody thinks of an answer."""

    answer: int
    vote: int


class Choose(CallbackData, prefix="choose"):
    """Sets a chat's setting; an empty value does nothing, an empty name sets all back."""

    name: str
    value: str


def under_answer(answer: int, vote: int) -> InlineKeyboardMarkup:
    """Return the buttons under an answer; pressing the vote that is set takes it back."""
    builder = InlineKeyboardBuilder()
    builder.button(text="🔁 " + _("Repeat"), callback_data=Again(answer=answer))
    for sign, value in (("👍", 1), ("👎", -1)):
        chosen = vote == value
        builder.button(
            text=f"{sign} ✓" if chosen else sign,
            callback_data=Vote(answer=answer, vote=0 if chosen else value),
        )
    return _markup(builder)


def settings_keyboard(modes: Modes, chosen: Mapping[str, Any]) -> InlineKeyboardMarkup:
    """Return the buttons of /settings: one below and one above each number, the mode, and back."""
    builder = InlineKeyboardBuilder()
    names = {"temperature": _("Temperature"), "top_p": "Top-p", "length": _("Length")}
    widths = []
    for name, shown in names.items():
        now = modes.value(name, chosen)
        if now is None:
            continue
        lower = max((n for n in modes.choices(name) if n < now), default=None)
        higher = min((n for n in modes.choices(name) if n > now), default=None)
        for text, value in (("−", lower), (f"{shown}: {now:g}", None), ("+", higher)):  # noqa: RUF001  # a minus
            written = "" if value is None else f"{value:g}"
            builder.button(text=text, callback_data=Choose(name=name, value=written))
        widths.append(3)
    mode = modes.mode(chosen)
    other = "continue" if mode == "chat" else "chat"
    text = _("Mode: {mode}").format(mode=mode_name(mode))
    builder.button(text=text, callback_data=Choose(name="mode", value=other))
    builder.button(text=_("Defaults"), callback_data=Choose(name="", value="default"))
    builder.adjust(*widths, 1, 1)
    return _markup(builder)


def _markup(builder: InlineKeyboardBuilder) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup(inline_keyboard=builder.export())
