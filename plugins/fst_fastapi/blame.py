"""Blame: which plugin an error of the engine came from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fst_core.components import KINDS
from fst_core.plugins import registry

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["plugin_at_fault"]


def plugin_at_fault(error: BaseException) -> str | None:
    """Return the plugin in whose code an error's cause was raised; None if in no plugin's.

    Engines wrap what a plugin raises; the plugin is the last one that the cause went through.
    """
    cause = error.__cause__
    if cause is None:
        return None
    offers = (offer for kind in KINDS for offer in registry().of_kind(kind))
    plugins = {re.split(r"[.:]", offer.component.target)[0]: offer.plugin for offer in offers}
    found: str | None = None
    step: TracebackType | None = cause.__traceback__
    while step is not None:
        root = str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        found = plugins.get(root, found)
        step = step.tb_next
    return found
