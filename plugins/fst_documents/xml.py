"""XML and HTML that may be hostile: no entity is resolved, and nothing but what is given is read."""

from __future__ import annotations

from typing import Any

from lxml import etree  # type: ignore[import-untyped]  # shipped without type information

from fst_core.errors import DocumentError, one_line

__all__ = ["local", "parse", "parse_page", "walk"]


def parse(data: bytes, name: str) -> Any:
    """Return the root element of a document.

    Raises:
        DocumentError: it is not well-formed, or declares entities.
    """
    # huge_tree stays false: libxml2's own bounds on depth and on entities in attributes hold.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise DocumentError(f"{name}: damaged: not well-formed XML: {one_line(error)}") from None
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise DocumentError(f"{name}: declares entities of its own, which are not resolved")
    return root


def parse_page(page: str, name: str) -> Any:
    """Return the root element of an HTML page, however wrong its markup is; None if it has none.

    Raises:
        DocumentError: the parser gave up, as it does where elements are nested 2,048 deep.
    """
    # A page is text already: what it says of its bytes must not count. HTML declares no entities, so
    # that its texts may be as long as they like.
    parser = etree.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True
    )
    data = page.replace("\0", "").encode()
    root = etree.fromstring(data, parser) if data.strip() else None
    for problem in parser.error_log:
        if problem.level_name == "FATAL":
            raise DocumentError(f"{name}: cannot be read as HTML: {problem.message.strip()}")
    return root


def walk(root: Any) -> Any:
    """Return an iterator over ("start" or "end", element), whose `skip_subtree` skips what is inside."""
    return etree.iterwalk(root, events=("start", "end"))


def local(element: Any) -> str:
    """Return an element's name without its namespace; "" for what is no element."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
