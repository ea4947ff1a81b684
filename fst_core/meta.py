"""Labels: what kind of document this is, written in front of it, so that a model can be told what to write.

They work as the control codes of CTRL (Keskar et al. 2019), and are text: a line of their own that
a rule sets apart. Both preparation and engines write them here, so that a prompt begins as the
documents do that a model has learned from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fst_core.documents import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = ["encode_meta", "encode_prompt", "labelled"]

_RULE: Final = "\n---\n"
"""Between a label and what it labels."""


def encode_meta(tokenizer: Tokenizer, meta: str | None) -> list[int]:
    """Return the ids of a label, which stand between the `bos_id` and the text; none for no label."""
    meta = (meta or "").strip()
    return tokenizer.encode(meta + _RULE) if meta else []


def encode_prompt(tokenizer: Tokenizer, text: str, meta: str | None = None) -> list[int]:
    """Return `Tokenizer.encode_prompt` of a text with a label in front of it."""
    ids = tokenizer.encode_prompt(text)
    framed = int(tokenizer.bos_id is not None)
    return [*ids[:framed], *encode_meta(tokenizer, meta), *ids[framed:]]


def labelled(messages: Sequence[Message], meta: str | None) -> tuple[Message, ...]:
    """Return a conversation with its label, which begins what the system says first."""
    meta = (meta or "").strip()
    if not meta:
        return tuple(messages)
    if messages and messages[0].role == "system":
        said = f"{meta}{_RULE}{messages[0].content}"
        return (Message("system", said), *messages[1:])
    return (Message("system", meta), *messages)
