"""Log probabilities of a server elsewhere: how it is asked for them, and what its answers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fst_core.errors import UnsupportedParameter
from fst_core.generation import Logprob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["logprobs_of", "scoring"]

_MOST: Final = 20
"""How many likely tokens servers tell beside each of a conversation's, at most."""
_BY_ID: Final = "token_id:"
"""What the name of a token begins with that is named by its id."""


def scoring(top: int, *, chat: bool) -> dict[str, Any]:
    """Return the fields that ask for log probabilities, and for so many of the likeliest ids."""
    by_ids = {"return_tokens_as_token_ids": True} if top else {}
    if not chat:
        return {"logprobs": top, **by_ids}
    # vLLM counts the chosen one among them, even where it is none of the likeliest.
    likeliest = {"top_logprobs": max(top, min(top + 1, _MOST))} if top else {}
    return {"logprobs": True, **likeliest, **by_ids}


def logprobs_of(
    choice: Mapping[str, Any], ids: Sequence[int], characters: int, top: int
) -> tuple[Logprob, ...] | None:
    """Return the log probabilities of a piece of a text; None if it has no ids, and needs none.

    Args:
        choice: of a completion or of a chat, as the server tells it.
        ids: of the piece.
        characters: how many it has.
        top: how many likely ids to report beside each of its ids.

    Raises:
        UnsupportedParameter: the choice does not say of which ids the log probabilities are.
    """
    said = choice.get("logprobs") or {}
    content = said.get("content") or ()
    chosen = said.get("token_logprobs") or [each["logprob"] for each in content]
    if len(chosen) != len(ids) or (characters and not ids):
        raise _unnamed()
    tables = said.get("top_logprobs") or [
        {each["token"]: each["logprob"] for each in entry.get("top_logprobs") or ()}
        for entry in content
    ]
    if not top:
        tables = [{}] * len(ids)
    elif len(tables) != len(ids):
        raise _unnamed()
    found = zip(ids, chosen, tables, strict=True)
    return tuple(Logprob(i, logprob, _likeliest(table, top)) for i, logprob, table in found) or None


def _likeliest(table: Mapping[str, float], top: int) -> tuple[tuple[int, float], ...]:
    """Return the likeliest ids of a table that may have the chosen one besides."""
    likeliest = sorted(table.items(), key=lambda each: -each[1])[:top]
    return tuple((_id(name), logprob) for name, logprob in likeliest)


def _id(name: str) -> int:
    written = name.removeprefix(_BY_ID)
    if written == name or not written.isdecimal():
        raise _unnamed()
    return int(written)


def _unnamed() -> UnsupportedParameter:
    return UnsupportedParameter("logprobs", "the server does not say of which ids they are")
