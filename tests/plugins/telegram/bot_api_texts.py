"""What the Bot API accepts as a text: its length, its entities, its markup; see `bot_api`."""

from __future__ import annotations

import re
from html import unescape

LONGEST = 4096
"""In units of UTF-16: nobody says whether characters or units count, and what fits in units fits in both."""
LONGEST_CAPTION = 1024
RESERVED = "_*[]()~`>#+-=|{}.!"
"""The characters that MarkdownV2 wants escaped."""
TAGS = {
    "b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "a", "tg-spoiler",
    "span", "blockquote", "tg-emoji",
}  # fmt: skip


class Refused(Exception):
    """The API answers with an error."""

    def __init__(self, status, description, **parameters):
        super().__init__(description)
        self.status, self.description, self.parameters = status, description, parameters


def bad(description):
    """Return the error of a request that is wrong."""
    return Refused(400, f"Bad Request: {description}")


def units(text):
    """Return the length of a text in units of UTF-16, by which entities are placed."""
    return len(text.encode("utf-16-le")) // 2


def accepted(text, entities, parse_mode, *, longest=LONGEST, too_long="message is too long"):
    """Return a text as it is shown, with its entities.

    Control characters become spaces, white space at both ends falls away (before the first entity
    alone), as Telegram does it.
    """
    if parse_mode:
        text = _parsed(text, parse_mode)
    text = re.sub(r"[\x00-\x09\x0b-\x1f]", " ", text.replace("\r", ""))
    entities = [dict(e) for e in entities or ()]
    _check_entities(text, entities)
    if units(text.strip()) > longest:
        raise bad(too_long)
    first = min((e["offset"] for e in entities), default=units(text))
    before = len(text) - len(text.lstrip(" \n"))
    cut = min(before, first)  # white space is one unit a character
    shown = text[cut:].rstrip(" \n")
    end = units(shown)
    kept = []
    for e in entities:
        length = min(e["offset"] - cut + e["length"], end) - (e["offset"] - cut)
        if length > 0:
            kept.append({**e, "offset": e["offset"] - cut, "length": length})
    return shown, kept


def _check_entities(text, entities):
    """Refuse what points outside of the text, or between the halves of a character."""
    borders, at = {0}, 0
    for letter in text:
        at += units(letter)
        borders.add(at)
    for entity in entities:
        offset, length = entity["offset"], entity["length"]
        begin = f"entity beginning at UTF-16 offset {offset}"
        if offset < 0 or length < 0 or offset > at:
            raise bad(f"{begin} begins after the end of the text at UTF-16 offset {at}")
        if offset + length > at:
            raise bad(f"{begin} ends after the end of the text at UTF-16 offset {at}")
        if not {offset, offset + length} <= borders:
            raise bad(f"{begin} begins or ends in a middle of a UTF-16 symbol")


def _parsed(text, parse_mode):
    """Return the text without its markup; refuse markup that is wrong.

    The entities of the markup are not worked out: nobody here looks at them.
    """
    mode = parse_mode.lower()
    if mode == "html":
        return _parsed_html(text)
    if mode == "markdownv2":
        return _parsed_markdown(text)
    if mode == "markdown":
        return text
    raise bad("unsupported parse_mode")


def _parsed_html(text):
    open_tags = []
    for found in re.finditer(r"<(/?)([^\s>]*)[^>]*(>?)", text):
        closing, tag, end = found.groups()
        at = len(text[: found.start()].encode())
        if not end or tag.lower() not in TAGS:
            raise bad(f'can\'t parse entities: Unsupported start tag "{tag}" at byte offset {at}')
        if not closing:
            open_tags.append((tag, at))
        elif not open_tags or open_tags.pop()[0] != tag:
            raise bad(f"can't parse entities: Unexpected end tag at byte offset {at}")
    if open_tags:
        raise bad(f"can't parse entities: Can't find end tag corresponding to start tag \"{tag}\"")
    return unescape(re.sub(r"<[^>]*>", "", text))


def _parsed_markdown(text):
    shown, open_marks, at = [], [], 0
    while at < len(text):
        letter = text[at]
        if letter == "\\" and at + 1 < len(text):
            shown.append(text[at + 1])
            at += 2
            continue
        mark = next(
            (m for m in ("```", "__", "||", "*", "_", "~", "`") if text.startswith(m, at)), ""
        )
        if mark:
            if open_marks and open_marks[-1][0] == mark:
                open_marks.pop()
            else:
                open_marks.append((mark, len(text[:at].encode())))
            at += len(mark)
            continue
        if letter in RESERVED and not (open_marks and open_marks[-1][0].startswith("`")):
            raise bad(
                f"can't parse entities: Character '{letter}' is reserved "
                "and must be escaped with the preceding '\\'"
            )
        shown.append(letter)
        at += 1
    if open_marks:
        raise bad(
            f"can't parse entities: Can't find end of the entity starting at byte offset {open_marks[-1][1]}"
        )
    return "".join(shown)
