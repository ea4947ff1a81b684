"""What is told of the interface: the OpenAPI document, the reference, the page's files, docs/http.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from fst_fastapi.field_table import CHAT, COMPLETIONS, DETOKENIZE, FIELDS, OLD, TOKENIZE
from wire import run, toy_engine

DOCS = Path(__file__).parents[3] / "docs/http.md"
PATHS = (COMPLETIONS, CHAT, TOKENIZE, DETOKENIZE, OLD)


def document_of(engine):
    async def scenario(site):
        return (await site.get("/openapi.json")).json()

    return run(scenario, engine)


@pytest.fixture(scope="module")
def document():
    return document_of(toy_engine())


def test_every_field_is_in_the_document_with_its_sentence(document):
    for path in PATHS:
        content = document["paths"][path]["post"]["requestBody"]["content"]
        schema = content["application/json"]["schema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False
        for field in FIELDS:
            if path in field.paths:
                said = schema["properties"][field.name]
                assert said["description"] == field.does
                assert (field.name in schema.get("required", ())) == field.needed


def test_answers_are_as_the_document_says(document):
    async def scenario(site):
        for path, body in {
            COMPLETIONS: {"prompt": ["a", "b"], "n": 2, "logprobs": 1},
            CHAT: {"messages": [{"role": "user", "content": "a"}], "logprobs": True},
            TOKENIZE: {"prompt": "a"},
            DETOKENIZE: {"tokens": [97]},
            OLD: {"seed_text": "a"},
        }.items():
            check(await site.post(path, body), document["paths"][path]["post"])
            check(await site.post(path, {"unknown": 1}), document["paths"][path]["post"])
        for path in ("/v1/models", "/healthz", "/readyz", "/version", "/health_check/"):
            check(await site.get(path), document["paths"][path]["get"])
        check(await site.get("/v1/models/fst"), document["paths"]["/v1/models/{name}"]["get"])
        check(await site.get("/v1/models/x/y"), document["paths"]["/v1/models/{name}"]["get"])

    def check(answer, said):
        described = said["responses"][str(answer.status_code)]
        schema = described.get("content", {}).get("application/json", {}).get("schema", {})
        jsonschema.validate(answer.json(), schema)

    run(scenario, toy_engine())


def test_the_reference_is_a_page_that_loads_nothing_from_elsewhere():
    async def scenario(site):
        answer = await site.get("/docs")
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "<script" not in answer.text
        assert "<th></th>" not in answer.text
        assert 'rel="icon" href="/page.svg"' in answer.text
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
        for path in PATHS:
            assert f"<code>POST {path}</code>" in answer.text

    run(scenario, toy_engine())


def test_the_page_is_four_files_of_the_right_types():
    async def scenario(site):
        for path, kind in {
            "/": "text/html; charset=utf-8",
            "/page.js": "text/javascript; charset=utf-8",
            "/page.css": "text/css; charset=utf-8",
            "/page.svg": "image/svg+xml",
        }.items():
            answer = await site.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == kind
            assert answer.headers["content-security-policy"].startswith("default-src 'self'")
            assert answer.headers["x-content-type-options"] == "nosniff"
        for path in ("/index.html", "/page/page.js", "/../pyproject.toml", "/page.js%00"):
            assert (await site.get(path)).status_code == 404

    run(scenario, toy_engine())


def test_the_table_of_fields_in_the_docs_is_the_one_in_the_code():
    text = DOCS.read_text("utf-8")
    for path in PATHS:
        section = text.split(f"### `POST {path}`")[1].split("\n### ")[0].split("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
        expected = [(f.name, shown(f), f.does) for f in FIELDS if path in f.paths]
        assert rows == expected, path


def shown(field):
    """What the docs say of a field's value when it is left out, or of those that are accepted."""
    if field.needed:
        return "needed"
    if "enum" in field.schema and not field.used:
        return "only " + ", ".join(f"`{json.dumps(each)}`" for each in field.schema["enum"])
    return "" if field.default is None else f"`{json.dumps(field.default)}`"
