"""Russian text written with marks, so that a word looks the same wherever it stands, and back.

    В Москве ещё «ждут» –   <->   ↑в↑ москве¨¨ еще «ждут» ≈—

A vocabulary learned from such text needs one entry for a word at the beginning of a sentence and
within it, in capitals, with ё and with е. Nothing is lost: `unmarked(marked(text)) == text` for
every text, and a beginning of a marked text gives a beginning of the text, so that it can be
streamed. A mark stands before the space in front of its word, which leaves the space to the word.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["marked", "unmarked"]

CAPITAL: Final = "↑"
"""The next word begins with a capital letter."""
CAPITALS: Final = "⇑"
"""The next word is written in capital letters."""
YO: Final = "¨"
"""In the next word an е is ё: the first, or as many further on as there are marks."""
VARIANT: Final = "≈"
"""The next quotation mark or dash is written in the less usual way."""
ESCAPE: Final = "␛"
"""The next character is itself, and no mark."""

USUAL: Final = {"„": "«", "“": "»", "–": "—"}
"""Quotation marks and dashes that mean the same as a more usual one."""
_UNUSUAL: Final = {usual: unusual for unusual, usual in USUAL.items()}

_MARKS = CAPITAL + CAPITALS + YO + VARIANT + ESCAPE
_LETTERS = "А-Яа-яЁёA-Za-z"
_MARKED = re.compile(rf"( ?)([{_LETTERS}]+)|([{''.join(USUAL)}])|([{_MARKS}])")
_UNMARKED = re.compile(
    rf"{ESCAPE}(.)|{VARIANT}(.)|([{CAPITAL}{CAPITALS}]?)({YO}*)( ?)([{_LETTERS}]+)|[{_MARKS}]",
    re.DOTALL,
)


def marked(text: str) -> str:
    """Write a text with marks."""
    return _MARKED.sub(_mark, text)


def unmarked(text: str) -> str:
    """Write a marked text as it was; marks that mark nothing are left out."""
    return _UNMARKED.sub(_unmark, text)


def _mark(match: re.Match[str]) -> str:
    space, word, variant, mark = match.groups()
    if variant:
        return VARIANT + USUAL[variant]
    if mark:
        return ESCAPE + mark
    marks = ""
    if word[0].isupper() and (len(word) == 1 or word[1:].islower()):
        marks, word = CAPITAL, word.lower()
    elif word.isupper():
        marks, word = CAPITALS, word.lower()
    if word.count("ё") == 1:
        before, _, after = word.partition("ё")
        marks += YO * (before.count("е") + 1)
        word = f"{before}е{after}"
    return marks + space + word


def _unmark(match: re.Match[str]) -> str:
    escaped, variant, case, yo, space, word = match.groups()
    if escaped:
        return str(escaped)
    if variant:
        return _UNUSUAL.get(variant, variant)
    if not word:
        return ""
    parts = word.split("е")
    if yo and len(parts) > len(yo):
        word = "е".join(parts[: len(yo)]) + "ё" + "е".join(parts[len(yo) :])
    if case == CAPITAL:
        word = word[0].upper() + word[1:]
    elif case == CAPITALS:
        word = word.upper()
    return f"{space}{word}"
