"""Plans and fingerprints: what a stage would do, and which field makes it so."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from pathlib import Path

import pytest

from fst_core.errors import ArtefactError, DocumentError
from fst_core.pipeline.fingerprint import Fingerprint
from fst_core.pipeline.pipeline import check_pipeline
from fst_core.pipeline.plan import Plan, number

ROOT = Path("results")

pytestmark = pytest.mark.usefixtures("work")


def made(**results):
    """Make numbered directories, and return what describes them: `_1={"a": 1}`, or None if damaged."""
    fields = {name.removeprefix("_"): value for name, value in results.items()}
    for name in fields:
        (ROOT / name).mkdir(parents=True)

    def described(directory):
        if fields[directory.name] is None:
            raise ArtefactError(f"{directory}: damaged")
        found = Fingerprint(**fields[directory.name])
        return {"fingerprint": found.digest, "fields": found.fields}

    return described


def plan(described, fields, state="reuse"):
    return number("stage", ROOT, Fingerprint(**fields), described, lambda _: state)


def test_the_first_result_is_number_one():
    first = plan(made(), {"a": 1})
    assert (first.action, first.directory) == ("make", ROOT / "1")
    assert first.reasons == ("nothing has been made yet",)
    assert first.fingerprint == Fingerprint(a=1).digest
    assert first.fields == {"a": 1}


@pytest.mark.parametrize("state", ["reuse", "continue"])
def test_an_equal_result_is_used_as_its_state_says(state):
    equal = plan(made(_1={"a": 1}, _2={"a": 2}), {"a": 1}, state)
    assert (equal.action, equal.directory, equal.reasons) == (state, ROOT / "1", ())


def test_of_equal_results_the_newest_is_used():
    assert plan(made(_2={"a": 1}, _10={"a": 1}), {"a": 1}).directory == ROOT / "10"


def test_a_change_is_told_against_the_newest_result():
    changed = plan(made(_1={"a": 0, "b": 0}, _9={"a": 1, "b": 2}), {"a": 1, "b": 3})
    assert (changed.action, changed.directory) == ("make", ROOT / "10")
    assert changed.reasons == ("changed since 9: b: 2 -> 3",)


def test_a_damaged_result_is_told_and_its_number_is_not_given_again():
    described = made(_1={"a": 1}, _2={"a": 2}, _3=None)
    changed = plan(described, {"a": 3})
    assert changed.directory == ROOT / "4"
    assert changed.reasons == (
        f"not used: {ROOT / '3'}: damaged",
        "changed since 2: a: 2 -> 3",
    )
    assert plan(described, {"a": 1}).directory == ROOT / "1"


def test_a_plan_in_words():
    told = Plan("train", "make", Path("runs/a/2"), Fingerprint(), ("changed since 1: b: 2 -> 3",))
    assert str(told) == f"train: to be made: {told.directory}\n  changed since 1: b: 2 -> 3"
    assert str(Plan("train", "reuse", Path("1"), Fingerprint())) == "train: up to date: 1"


# fingerprints


def test_the_digest_depends_on_every_field_and_not_on_their_order():
    digests = {
        Fingerprint(**fields).digest
        for fields in ({}, {"a": 1}, {"a": 2}, {"a": "1"}, {"a": None}, {"b": 1}, {"a": 1, "b": 1})
    }
    assert len(digests) == 7
    assert Fingerprint(a=1, b=2).digest == Fingerprint(b=2, a=1).digest


def test_a_value_that_is_still_to_be_found_is_waited_for_where_it_matters():
    value = Future()
    fingerprint = Fingerprint(a=1)
    fingerprint.add("b", value)
    fingerprint.add("c", 3)
    first = number("stage", ROOT, fingerprint, made(), lambda _: "reuse")
    assert (first.action, first.directory) == ("make", ROOT / "1")  # whatever the value is
    value.set_result(2)
    assert list(first.fields.items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert first.fingerprint == Fingerprint(a=1, b=2, c=3).digest
    described = made(_1={"a": 1, "b": 2, "c": 3})
    assert number("stage", ROOT, fingerprint, described, lambda _: "reuse").action == "reuse"


def test_a_plan_reaches_another_process_with_what_was_found():
    value = Future()
    value.set_result(2)
    fingerprint = Fingerprint(a=1)
    fingerprint.add("b", value)
    sent = pickle.loads(pickle.dumps(Plan("prepare", "make", ROOT, fingerprint)))
    assert sent.fields == {"a": 1, "b": 2}


def test_what_cannot_be_found_is_told_where_it_is_asked_for():
    value = Future()
    value.set_exception(DocumentError("a.txt: no such file"))
    fingerprint = Fingerprint(a=1)
    fingerprint.add("b", value)
    with pytest.raises(DocumentError, match=r"a\.txt"):
        fingerprint.settle()


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({}, {"a": "x"}, ["a: (absent) -> 'x'"]),
        ({"a": "x"}, {}, ["a: 'x' -> (absent)"]),
        ({}, {"a": None}, ["a: (absent) -> None"]),
        ({"b": [1], "a": 1}, {"a": 2, "b": [1, 2]}, ["a: 1 -> 2", "b: [1] -> [1, 2]"]),
        ({"a": "0" * 64}, {"a": "f" * 64}, [f"a: {'0' * 12} -> {'f' * 12}"]),
    ],
)
def test_every_difference_has_a_line(before, now, lines):
    """Whenever digests differ there is one, so that a result is never made anew without a reason."""
    fingerprint = Fingerprint(**now)
    assert fingerprint.differences(before) == lines
    assert (fingerprint.digest != Fingerprint(**before).digest) == bool(lines)


def test_a_component_counts_with_its_address_its_format_and_all_settings():
    checked = check_pipeline(
        "pipeline.toml",
        {
            "documents": {"use": "delimited", "train": ["a.txt", "b.txt"]},
            "tokenizer": {"use": "bytes"},
        },
    )
    fingerprint = Fingerprint()
    for part in checked.parts("documents", "tokenizer"):
        fingerprint.add_part(part.place.strip("[]"), part)
    assert fingerprint.fields == {
        "documents.use": "files/delimited",
        "documents.format": 1,
        "documents.train": ["a.txt", "b.txt"],
        "documents.valid": [],
        "documents.on_error": "stop",
        "documents.encoding": "utf-8",
        "documents.encoding_errors": "strict",
        "documents.end_of_document": "[END_OF_DOCUMENT]",
        "documents.strip_lines": True,
        "tokenizer.use": "bytes/bytes",
        "tokenizer.format": 1,
    }
