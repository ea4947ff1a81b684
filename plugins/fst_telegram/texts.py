"""The bot's texts: English in the code, others in `locales`, compiled by `pybabel compile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiogram.types import BotCommand
from aiogram.utils.i18n import I18n
from aiogram.utils.i18n import gettext as _

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LANGUAGES", "commands", "describe", "end", "help_text", "i18n", "mode_name"]

LANGUAGES: Final = ("en", "ru")


def i18n() -> I18n:
    """Return the translations."""
    return I18n(path=Path(__file__).parent / "locales", default_locale="en")


def commands() -> list[BotCommand]:
    """Return the menu, in the current language."""
    described = {
        "new": _("Begin a new conversation"),
        "stop": _("Stop the answer"),
        "retry": _("Answer again"),
        "continue": _("Go on writing"),
        "settings": _("Temperature, length and mode"),
        "model": _("Which model this is"),
        "export": _("Get this conversation as a file"),
        "help": _("What this bot does"),
    }
    return [BotCommand(command=name, description=text) for name, text in described.items()]


def help_text(mode: str) -> str:
    """Return what the bot does."""
    what = (
        _("Write to me, and I answer; I remember our conversation until /new.")
        if mode == "chat"
        else _("Send me the beginning of a text, and I go on with it.")
    )
    lines = [f"/{c.command}: {c.description}" for c in commands()]
    groups = _("In a group, mention me or reply to me.")
    return "\n".join([what, groups, "", *lines])


def describe(described: Mapping[str, object], mode: str) -> str:
    """Return what is known of the model."""
    rows = {
        _("Model"): described.get("model"),
        _("Engine"): described.get("name"),
        _("Parameters"): described.get("parameters"),
        _("Context, tokens"): described.get("context_length"),
        _("Device"): described.get("device"),
        _("Precision"): described.get("dtype"),
        _("Mode"): mode_name(mode),
    }
    return "\n".join(f"{name}: {value}" for name, value in rows.items() if value is not None)


def mode_name(mode: str) -> str:
    """Return a mode's name."""
    return _("chat") if mode == "chat" else _("continue texts")


def end(state: str, *, begun: bool) -> str:
    """Return the notice of how an answer ended; empty if nothing need be said.

    Args:
        state: how it ended.
        begun: whether there is a part of the answer.
    """
    notices = {
        "done": "" if begun else _("The model wrote nothing. /retry tries again."),
        "stopped": _("Stopped."),
        "busy": _("The model is busy. Try again in a minute: /retry"),
        "too long": _("This text is too long for the model. Send a shorter one."),
        "refused": _(
            "The model cannot take this text or these settings. /new begins anew, /settings."
        ),
        "failed": _("The model failed, and this is not the whole answer. /retry")
        if begun
        else _("The model failed. /retry tries again."),
        "silent": _("The model has said nothing for too long. /retry tries again."),
        "moved": _("This group has become a supergroup; this answer ends here. /retry"),
        "shutdown": _("I am being restarted; this answer ends here. /retry"),
    }
    return notices[state]
