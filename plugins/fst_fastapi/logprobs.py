"""Log probabilities as clients read them: by the text of tokens instead of their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core import Engine
    from fst_core.generation import Logprob

__all__ = ["TokenTexts", "chat_logprobs", "completion_logprobs"]

_LEAST: Final = -9999.0
"""For a probability of zero, as JSON has no infinity."""
_CUT: Final = "\ufffd"


class TokenTexts:
    """The texts of tokens where they stand: many tokenizers write the first of a text otherwise.

    Tokens are named by their texts, or all by their ids.
    """

    def __init__(self, engine: Engine, *, by_ids: bool = False) -> None:
        self._engine = engine
        self._by_ids = by_ids
        self._known: dict[tuple[int, ...], str] = {}

    async def text(self, before: int | None, token: int) -> str:
        """Return what a token adds to the text that the one before it ends; "" if it has no text."""
        alone = await self._decode((token,))
        if before is None or not alone:
            return alone
        prefix = await self._decode((before,))
        both = await self._decode((before, token))
        fits = both.startswith(prefix) and _CUT not in both
        return both[len(prefix) :] if fits else alone

    def name(self, text: str, token: int) -> str:
        """Return a token's text, or its id where it has none, or only a part of a character."""
        return _by_id(token) if self._by_ids or not text or _CUT in text else text

    async def _decode(self, ids: tuple[int, ...]) -> str:
        if ids not in self._known:
            self._known[ids] = await self._engine.decode(ids)
        return self._known[ids]


async def completion_logprobs(
    entries: Sequence[Logprob | None],
    first: int | None,
    texts: TokenTexts,
    before: int | None,
    offset: int,
) -> dict[str, Any]:
    """Return the four equally long lists of a completion's choice.

    Args:
        entries: one for each token; None for a prompt's first, which nothing precedes.
        first: the id of that one.
        texts: of the tokens.
        before: the id before the first entry's.
        offset: where in the choice's text the first token begins.
    """
    tokens: list[str] = []
    chosen: list[float | None] = []
    likeliest: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for entry in entries:
        token = first if entry is None else entry.id
        assert token is not None
        text = await texts.text(before, token)
        tokens.append(texts.name(text, token))
        offsets.append(offset)
        offset += len(text)
        if entry is None:
            chosen.append(None)
            likeliest.append(None)
        else:
            chosen.append(_finite(entry.logprob))
            likeliest.append(await _likeliest(entry, texts, before))
        before = token
    return {
        "tokens": tokens,
        "token_logprobs": chosen,
        "top_logprobs": likeliest,
        "text_offset": offsets,
    }


async def _likeliest(entry: Logprob, texts: TokenTexts, before: int | None) -> dict[str, float]:
    """Return the likeliest tokens, best first, with the chosen one among them under its own name."""
    own = texts.name(await texts.text(before, entry.id), entry.id)
    found: dict[str, float] = {}
    for token, logprob in entry.top:
        name = texts.name(await texts.text(before, token), token)
        if token != entry.id and (name == own or name in found):
            name = _by_id(token)
        found[name] = _finite(logprob)
    found[own] = _finite(entry.logprob)
    return found


async def chat_logprobs(
    entries: Sequence[Logprob], texts: TokenTexts, before: int | None
) -> list[dict[str, Any]]:
    """Return the entries of a chat choice's `logprobs.content`."""
    content: list[dict[str, Any]] = []
    for entry in entries:
        top = [await _said(texts, before, token, logprob) for token, logprob in entry.top]
        said = await _said(texts, before, entry.id, entry.logprob)
        content.append({**said, "top_logprobs": top})
        before = entry.id
    return content


async def _said(
    texts: TokenTexts, before: int | None, token: int, logprob: float
) -> dict[str, Any]:
    text = await texts.text(before, token)
    return {
        "token": texts.name(text, token),
        "logprob": _finite(logprob),
        "bytes": list(text.encode()) if text and _CUT not in text else None,
    }


def _by_id(token: int) -> str:
    """Return the name of a token by its id, as vLLM writes it."""
    return f"token_id:{token}"


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
