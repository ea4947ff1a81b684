"""The budget: how many tokens a user gets a day."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fst_telegram.store import Store

__all__ = ["Budget"]


class Budget:
    """Counts the tokens that users got, against a limit if there is one."""

    def __init__(self, store: Store, daily_tokens: int | None) -> None:
        self._store = store
        self._daily = daily_tokens

    async def left(self, user: int) -> int | None:
        """Return how many tokens a user may get today; None: as many as they like."""
        if self._daily is None:
            return None
        return max(0, self._daily - await self._store.spent(user))

    async def spend(self, user: int, tokens: int) -> None:
        """Count what a user got."""
        if tokens:
            await self._store.spend(user, tokens)
