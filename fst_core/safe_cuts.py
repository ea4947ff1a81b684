"""Where a long text can be cut so that its pieces have together the ids of the whole.

Byte-level tokenizers split a text by a regular expression first, and merge bytes inside what it
matches alone. The expressions of GPT-2, cl100k and their kin match a space or a line end only at the
beginning of a match or among white space, and none looks behind itself. So between a letter or a
digit and the space or the line end after it one match ends and another begins, whatever stands on
either side. What an expression looks ahead at is white space before a character; the letter stays
on the same side as all white space before it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from unicodedata import ucd_3_2_0

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["can_be_cut", "pieces"]

_GPT2: Final = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)
_CL100K: Final = tuple(
    rf"{contractions}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for contractions in ("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)
"""As GPT-4, Llama 3 and Qwen 2 write it."""
_PATTERNS: Final = frozenset((*_GPT2, *_CL100K))


def can_be_cut(description: str) -> bool:
    """Return whether `pieces` of a text are known to have the ids of the whole, by a tokenizer.json."""
    # The vocabulary stands last, and to parse it takes long; a quote inside a string is escaped.
    before, model, _ = description.partition(',"model":{"type":"BPE"')
    if not model:
        return False
    said: dict[str, Any] = json.loads(before + "}")
    if said["normalizer"] is not None:
        return False
    if not all(token["special"] for token in said["added_tokens"]):  # they may hold white space
        return False
    steps = said["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    return all(map(_is_known, steps)) and any(map(_splits, steps))


def _is_known(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return step["add_prefix_space"] is False
    return step.get("type") == "Digits" or _splits(step)


def _splits(step: dict[str, Any]) -> bool:
    """Return whether a step splits by one of the expressions."""
    if step.get("type") == "ByteLevel":
        return step["use_regex"] is True
    return (
        step.get("type") == "Split"
        and step["behavior"] == "Isolated"
        and step["invert"] is False
        and step["pattern"].get("Regex") in _PATTERNS
    )


def pieces(text: str, characters: int) -> Iterator[str]:
    """Cut a text where it is safe, into pieces of about so many characters; longer where no place is."""
    start = 0
    while len(text) - start > characters and (at := _place(text, start + characters)) < len(text):
        yield text[start:at]
        start = at
    yield text[start:]


def _place(text: str, earliest: int) -> int:
    """Return the first safe place from `earliest` on; the text's end if there is none."""
    at = {mark: text.find(mark, earliest) for mark in " \n"}
    while places := [place for place in at.values() if place > 0]:
        place = min(places)
        # Letters of an old Unicode, so that all encoders agree what is one.
        if ucd_3_2_0.category(text[place - 1])[0] in "LN":
            return place
        mark = text[place]
        at[mark] = text.find(mark, place + 1)
    return len(text)
