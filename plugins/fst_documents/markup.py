"""The text of an HTML page as a reader sees it, and the encoding that a page says it has."""

from __future__ import annotations

import codecs
import re
from typing import Any, Final

from fst_core.reading.settings import is_encoding
from fst_documents.paragraphs import collapsed
from fst_documents.xml import local, parse_page, walk

__all__ = ["declared_encoding", "text_of"]

_SKIPPED: Final = {
    *("script", "style", "template", "noscript", "head", "nav", "iframe", "object", "svg", "math"),
    *("canvas", "audio", "video", "button", "select", "textarea", "dialog"),
}
"""What is no text of the page."""
_BLOCKS: Final = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details"),
    *("div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3"),
    *("h4", "h5", "h6", "head", "header", "hr", "html", "legend", "li", "main", "nav", "ol", "p"),
    *("pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
}
"""What begins a line and ends one."""
_CELLS: Final = {"td", "th"}
_NAVIGATION: Final = {"navigation", "menu", "menubar", "search"}
"""Roles of elements (WAI-ARIA) that lead elsewhere."""
_SAID: Final = re.compile(
    rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)|<meta\b[^>]*?charset\s*=\s*[\"']?\s*([\w.:-]+)",
    re.IGNORECASE,
)
_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_HEAD: Final = 4096
"""Bytes in which a page says its encoding."""


def text_of(page: str, name: str) -> str:
    """Return the text of a page, a block a line; lines of `pre` are kept.

    Raises:
        DocumentError: it cannot be parsed; the message begins with `name`.
    """
    root = parse_page(page, name)
    return "" if root is None else _Text().of(root)


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding that a page says it has, by a mark or in words; None if none is known."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    said = _SAID.search(data[:_HEAD])
    name = (said[1] or said[2]).decode() if said else ""
    if not is_encoding(name):
        return None
    name = codecs.lookup(name).name
    if name.startswith(("utf-16", "utf-32")):
        return "utf-8"  # words that are read as ASCII are not in these
    # As browsers do: pages that say Latin-1 are Windows-1252.
    return "cp1252" if name in {"iso8859-1", "ascii"} else name


class _Text:
    """Gathers the lines of a page."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._kept = 0  # how many `pre` are open

    def of(self, root: Any) -> str:
        walker = walk(root)
        for event, element in walker:
            tag = local(element)
            if event == "end":
                self._end(tag)
                self._write(element.tail)
            else:
                self._begin(tag)
                if _is_skipped(element, tag):
                    walker.skip_subtree()
                else:
                    self._write(element.text)
        self._break()
        return "\n".join(self._lines).strip("\n")

    def _begin(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._break()
        elif tag == "br":
            self._line.append("\n")
        elif tag in _CELLS and self._line:
            self._line.append("\t")
        self._kept += tag == "pre"

    def _end(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._break()
        self._kept -= tag == "pre"

    def _write(self, text: str | None) -> None:
        if text:
            self._line.append(text if self._kept else collapsed(text))

    def _break(self) -> None:
        """End a line."""
        text = "".join(self._line)
        self._line.clear()
        if self._kept:
            if text.strip():
                self._lines += [line.rstrip() for line in text.strip("\n").split("\n")]
        elif text := re.sub(r" *([ \n\t]) *", r"\1", text).strip():
            self._lines += text.split("\n")


def _is_skipped(element: Any, tag: str) -> bool:
    return (
        tag in _SKIPPED
        or "hidden" in element.attrib
        or element.get("aria-hidden") == "true"
        or element.get("role") in _NAVIGATION
    )
