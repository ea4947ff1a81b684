"""The errors that FST raises on purpose; each prints as it reads, without a traceback.

FstError                        the work failed (exit status 1)
├── EngineBusy                  too many requests are waiting; this one may be sent again later
├── PluginError                 a plugin could not be loaded, and something named it
└── UserError                   what the user wrote or named is wrong (exit status 2)
    ├── SettingsError           keys or values of a pipeline, all of them at once
    ├── UnknownComponent        no plugin offers that name
    ├── AmbiguousComponent      two plugins offer that name
    ├── MissingDependency       a component needs a package that is not installed
    ├── MissingPlugin           an artefact names a plugin that is not installed
    ├── DocumentError           a document cannot be read
    ├── ArtefactError           a dataset, tokenizer or model is damaged or does not fit
    ├── PromptTooLong           a prompt leaves the model no room
    └── UnsupportedParameter    an engine cannot honour a field of a request
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AmbiguousComponent",
    "ArtefactError",
    "DocumentError",
    "EngineBusy",
    "FstError",
    "MissingDependency",
    "MissingPlugin",
    "PluginError",
    "PromptTooLong",
    "SettingsError",
    "UnknownComponent",
    "UnsupportedParameter",
    "UserError",
    "one_line",
]


class FstError(Exception):
    """The work failed; the message says what happened and what can be done."""

    exit_status = 1


class EngineBusy(FstError):
    """Too many requests are waiting; this one may be sent again, after `retry_after` seconds if known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class PluginError(FstError):
    """A plugin could not be loaded, and something named it."""


class UserError(FstError):
    """What the user wrote or named is wrong, or known to be impossible before work began."""

    exit_status = 2


class SettingsError(UserError):
    """Keys or values are wrong; `problems` has a line for each of them."""

    def __init__(self, place: str, problems: Sequence[str]) -> None:
        self.place = place
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n  ".join([f"{place} has {count}:", *self.problems]))


class UnknownComponent(UserError):
    """No plugin offers that name."""


class AmbiguousComponent(UserError):
    """Two plugins offer that name; its full address `plugin/component` tells them apart."""


class MissingDependency(UserError):
    """A component needs a package that is not installed."""


class MissingPlugin(UserError):
    """An artefact names a plugin that is not installed."""


class DocumentError(UserError):
    """A document cannot be read; the message begins with the place, as `file:line`."""


class ArtefactError(UserError):
    """A dataset, tokenizer or model is damaged, or does not fit what it is used with."""


class PromptTooLong(UserError):
    """A prompt leaves the model no room for what it is to generate."""


class UnsupportedParameter(UserError):
    """An engine cannot honour a field of a request; `parameter` names it."""

    def __init__(self, parameter: str, reason: str = "is not supported by this engine") -> None:
        self.parameter = parameter
        super().__init__(f"{parameter}: {reason}")


def one_line(error: BaseException) -> str:
    """Return the words of an error of somebody else on one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
