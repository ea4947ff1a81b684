"""Modes: what a chat's settings mean for this engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_core import Engine
    from fst_telegram.settings import TelegramSettings

__all__ = ["CHOICES", "Modes"]

CHOICES: Final[Mapping[str, tuple[float, ...]]] = {
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0),
    "top_p": (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0),
    "length": (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
}
"""The values that a chat may choose."""


class Modes:
    """Knows what a chat may choose, and what it has chosen."""

    def __init__(self, settings: TelegramSettings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine

    def mode(self, chosen: Mapping[str, Any]) -> str:
        """Return whether a chat's texts are continued, or answered as in a conversation."""
        trained = self._engine.describe().get("chat") == "trained"
        return str(chosen.get("mode", "chat" if trained else "continue"))

    def parameters(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a chat has chosen of the samplers' parameters that the engine has now."""
        known = self._sampling()
        return {n: chosen[n] for n in ("temperature", "top_p") if n in chosen and n in known}

    def value(self, name: str, chosen: Mapping[str, Any]) -> float | None:
        """Return a number as it holds for a chat; None if there is no such parameter."""
        if name == "length":
            return float(chosen.get(name, self._settings.max_new_tokens))
        default = self._sampling().get(name, {}).get("default")
        return None if default is None else float(chosen.get(name, default))

    def choices(self, name: str) -> tuple[float, ...]:
        """Return the values of a number that a chat may choose."""
        if name == "length":
            return tuple(n for n in CHOICES[name] if n <= self._settings.max_new_tokens_bound)
        return CHOICES[name]

    def may_choose(self, name: str, value: str) -> bool:
        """Return whether a chat may choose a value, as its button says it."""
        if name == "mode":
            return value in {"chat", "continue"}
        return name in CHOICES and value in {f"{n:g}" for n in self.choices(name)}

    @staticmethod
    def typed(name: str, value: str) -> str | float:
        """Return a value that may be chosen as the settings hold it."""
        return value if name == "mode" else int(value) if name == "length" else float(value)

    def _sampling(self) -> Mapping[str, Mapping[str, Any]]:
        sampling: Mapping[str, Mapping[str, Any]] = self._engine.describe().get("sampling", {})
        return sampling
