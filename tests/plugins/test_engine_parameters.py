"""Parameters: what of a request no sampler can take is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from fst_engine.parameters import Parameters

from fst_core import Sampler, Settings
from fst_core.errors import UserError


class LookSettings(Settings):
    """Settings of a sampler."""

    look: dict[str, Any] = {}
    """How it looks."""
    size: int = 1
    """How large it is."""


def nested(depth):
    table: dict[str, Any] = {}
    for _ in range(depth):
        table = {"a": table}
    return table


@pytest.mark.parametrize(
    "value",
    [{"a": "\ud800"}, {"\ud800": 1}, nested(300), nested(100_000)],
    ids=["half a character", "half a character as a key", "too deep to read", "too deep to write"],
)
def test_what_cannot_be_written_as_json_is_refused_by_its_name(value):
    parameters = Parameters([(Sampler(), LookSettings())])
    with pytest.raises(UserError, match=r"^look: not a value of JSON"):
        parameters.merged({"size": 2, "look": value})


def test_another_table_is_taken_as_it_is():
    parameters = Parameters([(Sampler(), LookSettings())])
    [settings] = parameters.merged({"look": nested(50)})
    assert settings == LookSettings(look=nested(50))
