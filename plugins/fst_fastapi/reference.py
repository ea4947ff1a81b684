"""The reference at `/docs`: the OpenAPI document as a page that needs no script."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["reference_page"]

_HEADERS = {"content-security-policy": "default-src 'self'; frame-ancestors 'none'"}


def reference_page(document: Mapping[str, Any]) -> HTMLResponse:
    """Return the document, a section a path, with a table of the fields of its request."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    sections = [
        _section(method.upper(), path, said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        '<link rel="icon" href="/page.svg" type="image/svg+xml">'
        '<link rel="stylesheet" href="/page.css"></head><body class="reference"><main>'
        f'<h1>{title}</h1><p><a href="/openapi.json">openapi.json</a></p>{"".join(sections)}'
        "</main></body></html>"
    )
    return HTMLResponse(html, headers=_HEADERS)


def _section(method: str, path: str, said: Mapping[str, Any]) -> str:
    head = (
        f"<h2><code>{method} {escape(path)}</code></h2><p>{escape(said.get('description', ''))}</p>"
    )
    content = said.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema")
    if schema is None:
        return f"<section>{head}</section>"
    rows = "".join(_rows(schema))
    return (
        f"<section>{head}<table><thead><tr>"
        "<th>field</th><th>value</th><th>default</th><th>what it does</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _rows(schema: Mapping[str, Any]) -> Iterator[str]:
    needed = schema.get("required", ())
    for name, said in schema["properties"].items():
        default = "needed" if name in needed else json.dumps(said.get("default"))
        cells = [f"<code>{escape(name)}</code>", escape(_value(said)), escape(default)]
        cells.append(escape(said.get("description", "")))
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _value(said: Mapping[str, Any]) -> str:
    """Return in few words what a field may be."""
    if "anyOf" in said:
        kinds = [_value(each) for each in said["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in said:
        return " or ".join(json.dumps(each) for each in said["enum"] if each is not None)
    kind = said.get("type", "any")
    kind = " or ".join(each for each in kind if each != "null") if isinstance(kind, list) else kind
    if kind == "array":
        return f"array of {_value(said.get('items', {}))}"
    low = said.get("minimum", said.get("exclusiveMinimum"))
    high = said.get("maximum", said.get("exclusiveMaximum"))
    if (low is None and high is None) or (high or 0) >= 2**31 - 1:
        return str(kind)
    return f"{kind}, {'' if low is None else low} to {'' if high is None else high}"
