"""Constrained text over HTTP: OpenAI's `response_format`, and the sampler's own fields."""

from __future__ import annotations

import json
import re

import jsonschema
import openai
import pytest
from fst_constraints.constraint import ConstraintSampler
from fst_constraints.settings import ConstraintSettings
from fst_engine.local import LocalEngine
from fst_engine.settings import LocalSettings
from fst_samplers.settings import StandardSettings
from fst_samplers.standard import StandardSampler
from serving import Server, toy_engine

from fst_core.testing.toys import ToyTokenizer, toy_module

SAID = [{"role": "user", "content": "Who is there?"}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "glad": {"type": "boolean"}},
    "required": ["name", "glad"],
    "additionalProperties": False,
}
NAMED = {"type": "json_schema", "json_schema": {"name": "guest", "schema": SCHEMA, "strict": True}}


def constrained_engine():
    samplers = [
        (ConstraintSampler(settings := ConstraintSettings()), settings),
        (StandardSampler(standard := StandardSettings()), standard),
    ]
    engine = LocalEngine(LocalSettings())
    return engine.for_module(toy_module(256), ToyTokenizer(), samplers, 256)


@pytest.fixture(scope="module")
def client():
    with (
        Server(constrained_engine()) as server,
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made,
    ):
        yield made


def test_a_chat_answers_by_the_schema_of_its_response_format(client):
    for seed in range(5):
        found = client.chat.completions.create(
            model="fst", messages=SAID, response_format=NAMED, seed=seed
        )
        [choice] = found.choices
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    stream = client.chat.completions.create(
        model="fst", messages=SAID, response_format=NAMED, seed=4, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == choice.message.content


def test_a_completion_has_it_too_and_any_object_may_be_asked_for(client):
    found = client.completions.create(
        model="fst", prompt="a", max_tokens=100, extra_body={"response_format": NAMED}
    )
    jsonschema.validate(json.loads(found.choices[0].text), SCHEMA)
    found = client.chat.completions.create(
        model="fst",
        messages=SAID,
        response_format={"type": "json_object"},
        max_tokens=1,
        seed=1,
    )
    assert found.choices[0].message.content == "{"
    plain = client.completions.create(
        model="fst", prompt="a", max_tokens=5, extra_body={"response_format": {"type": "text"}}
    )
    assert len(plain.choices[0].text.encode()) > 0


def test_the_fields_of_the_sampler_are_there_by_themselves(client):
    for fields in ({"regex": "[0-9]{3}"}, {"json_schema": {"const": 123}}, {"regex": "a|b"}):
        text = client.completions.create(model="fst", prompt="a", extra_body=fields).choices[0].text
        wanted = fields.get("regex", "123")
        assert re.fullmatch(wanted, text)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"regex": "(a"}, "regex"),
        ({"regex": 5}, "regex"),
        ({"regex": "a", "json_schema": {}}, "regex"),
        ({"json_schema": {"type": "objekt"}}, "json_schema"),
        ({"json_schema": "{"}, "json_schema"),
        ({"json_schema": 3}, "json_schema"),
        ({"regex": "a{3}", "min_tokens": 5}, "min_tokens"),
        ({"json_schema": {}, "response_format": NAMED}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "json_schema",
        ),
    ],
)
def test_what_is_wrong_is_told_by_its_field(client, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="fst", prompt="a", extra_body=fields)
    assert refused.value.param == param


def test_without_such_a_sampler_the_field_is_refused():
    with (
        Server(toy_engine()) as server,
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        for wanted in (NAMED, {"type": "json_object"}):
            with pytest.raises(openai.BadRequestError) as refused:
                client.chat.completions.create(model="fst", messages=SAID, response_format=wanted)
            assert refused.value.param == "response_format"
