"""Settings: what a table may hold, and the words in which a wrong one is told."""

from __future__ import annotations

import re  # noqa: TC003  # pydantic reads the annotations of fields
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from fst_core import Settings
from fst_core.settings import key, problems, quoted, suggestion, validate


class Inner(Settings):
    depth: int = 1
    width: float = 1.5


class Everything(Settings):
    count: int = 1
    share: float = Field(0.5, gt=0, lt=1)
    size: int = Field(4, ge=1, le=64)
    loud: bool = False
    word: str = Field("a", min_length=1)
    long: str = Field("abc", min_length=3)
    place: Path = Path("toys")
    words: tuple[str, ...] = Field(("one",), min_length=1)
    numbers: list[int] = []
    table: dict[str, int] = {}
    color: Literal["red", "green"] = "red"
    limit: int | None = None
    period: int | str = 1
    spans: int | list[int] = 1
    pattern: re.Pattern[str] | None = None
    name: str = Field("a", pattern="^[a-z]$")
    inner: Inner = Inner()
    maybe: Inner | None = None
    either: int | Inner = 1


class Needy(Settings):
    path: str
    inner: Inner = Inner()


class Paired(Settings):
    low: int = 1
    high: int = 2

    @model_validator(mode="after")
    def _ordered(self):
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is more than high = {self.high}")
        return self


def told(cls, values):
    with pytest.raises(ValidationError) as raised:
        validate(cls, values)
    return list(problems(raised.value, cls, "[t]", values))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": "4"}, "count = '4': not an integer."),
        ({"count": 1.5}, "count = 1.5: not an integer."),
        ({"count": True}, "count = true: not an integer."),
        ({"count": float("inf")}, "count = inf: not an integer."),
        ({"share": "x"}, "share = 'x': not a number."),
        ({"share": float("nan")}, "share = nan: should be a finite number."),
        ({"share": 2}, "share = 2: should be less than 1."),
        ({"size": 0}, "size = 0: should be greater than or equal to 1."),
        ({"loud": 1}, "loud = 1: neither true nor false."),
        ({"loud": "true"}, "loud = 'true': neither true nor false."),
        ({"word": 1}, "word = 1: not a string."),
        ({"word": ""}, "word = '': empty."),
        ({"long": "ab"}, "long = 'ab': shorter than 3."),
        ({"place": 1}, "place = 1: not a string."),
        ({"words": "one"}, "words = 'one': not an array."),
        ({"words": []}, "words = []: empty."),
        ({"words": ["a", 1]}, "words.1 = 1: not a string."),
        ({"numbers": ["a"]}, "numbers.0 = 'a': not an integer."),
        ({"table": []}, "table = []: not a table."),
        ({"table": {"x": "y"}}, "table.x = 'y': not an integer."),
        ({"color": "blue"}, "color = 'blue': should be 'red' or 'green'."),
        ({"limit": "x"}, "limit = 'x': not an integer."),
        ({"period": [1]}, "period = [1]: not an integer; not a string."),
        ({"spans": ["x"]}, "spans.0 = 'x': not an integer."),
        ({"pattern": "("}, "pattern = '(': not a regular expression."),
        ({"name": "B"}, "name = 'B': does not match ^[a-z]$."),
        ({"inner": 3}, "inner = 3: not a table."),
        ({"inner": {"depth": "x"}}, "inner.depth = 'x': not an integer."),
        ({"inner": {"dept": 1}}, "inner.dept: unknown key. Did you mean 'depth'?"),
        ({"maybe": {"dept": 1}}, "maybe.dept: unknown key. Did you mean 'depth'?"),
        ({"either": {"dept": 1}}, "either.dept: unknown key. Did you mean 'depth'?"),
        ({"cuont": 1}, "cuont: unknown key. Did you mean 'count'?"),
        ({"zzz": 1}, "zzz: unknown key."),
        ({"a b\n": 1}, '"a b\\n": unknown key.'),
        ({"count": "x" * 999}, f"count = '{'x' * 76}...: not an integer."),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_its_author(values, line):
    assert told(Everything, values) == [f"[t] {line}"]


def test_a_missing_key_is_told_also_inside_of_what_is_wrong():
    assert told(Needy, {"inner": {"depth": "x"}}) == [
        "[t] path: this key is needed.",
        "[t] inner.depth = 'x': not an integer.",
    ]


def test_a_rule_between_two_keys_is_told_without_a_key():
    assert told(Paired, {"low": 5}) == ["[t] low = 5 is more than high = 2."]


def test_all_problems_of_a_table_are_told_up_to_what_a_person_reads():
    lines = told(Everything, {f"key{i}": i for i in range(1000)})
    assert len(lines) == 51
    assert lines[-1] == "[t] and 950 more."


def test_the_defaults_hold_and_survive_json():
    filled = Everything().model_dump(mode="json")
    assert validate(Everything, filled) == validate(Everything, {}) == Everything()


def test_strings_become_paths_and_arrays_become_tuples():
    settings = validate(Everything, {"place": "a/b", "words": ["x"], "share": 0.25})
    assert settings.place == Path("a/b")
    assert settings.words == ("x",)


def test_an_integer_is_a_number_too():
    assert validate(Everything, {"inner": {"width": 2}}).inner.width == 2.0


def test_settings_never_change():
    with pytest.raises(ValidationError, match="frozen"):
        Everything().count = 2


def test_a_string_below_a_field_is_its_description():
    class Described(Settings):
        size: int = 1
        """How large."""

    assert Described.model_fields["size"].description == "How large."


def test_a_suggestion_is_made_only_where_a_name_is_near():
    assert suggestion("vocab_sise", ["vocab_size", "path"]) == " Did you mean 'vocab_size'?"
    assert suggestion("colour", ["vocab_size", "path"]) == ""


def test_keys_and_strings_are_written_as_toml_writes_them():
    assert key("vocab-size_2") == "vocab-size_2"
    assert key("a.b") == '"a.b"'
    assert quoted('say "ё"\n') == '"say \\"ё\\"\\n"'
    assert len(quoted("x" * 1000)) == 80
