"""The commands that tell what is there: list-plugins, describe, schema, inspect, doctor."""

from __future__ import annotations

import json
import re
import sys

import pytest
from fakes import fst_fixture, spawn, with_fakes_fixture  # noqa: F401  # fixtures, by their names

from fst_core.artefacts import write_manifest
from fst_core.cli.columns import columns
from fst_core.cli.fields import fields
from fst_core.components import KINDS
from fst_core.pipeline.pipeline import TABLES
from fst_core.plugins import registry


def rows(text):
    """The cells of a printed table."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


# list-plugins


def test_list_plugins_shows_kind_name_provider_state_and_summary(with_fakes, fst):
    with_fakes("toy")
    done = fst("list-plugins")
    assert (done.status, done.err) == (0, "")
    table = rows(done.out)
    assert table[0] == ["KIND", "NAME", "FROM", "STATE", "SUMMARY"]
    assert ["model", "toy", "fst-fake-toy 1.2", "ready", "A model to try pipelines with."] in table
    kinds = [row[0] for row in table[1:]]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert set(kinds) == set(KINDS)


def test_list_plugins_of_one_kind(with_fakes, fst):
    with_fakes("toy")
    done = fst("list-plugins", "--kind", "executor")
    names = ["local", "plain", "ray", "toy"]
    assert [row[:2] for row in rows(done.out)[1:]] == [["executor", name] for name in names]


def test_list_plugins_shows_what_is_missing_and_the_line_that_installs_it(with_fakes, fst):
    with_fakes("needs")
    out = fst("list-plugins", "--kind", "trainer").out
    assert next(row[:4] for row in rows(out) if "needy" in row) == [
        "trainer",
        "needy",
        "fst-fake-needs 1.0",
        "needs fst_fake_absent",
    ]
    assert out.endswith("\nTo install:\n  pip install fst-fake-needs  for trainer needy\n")


def test_list_plugins_shows_both_sides_of_a_clash_with_their_addresses(with_fakes, fst):
    with_fakes("twin_a", "twin_b")
    out = fst("list-plugins", "--kind", "reader").out
    assert ["reader", "twin-a/twin", "fst-fake-twin-a 1.0", "ready, clash"] in [
        row[:4] for row in rows(out)
    ]
    assert ["reader", "twin-b/twin", "fst-fake-twin-b 2.0", "ready, clash"] in [
        row[:4] for row in rows(out)
    ]
    assert "Offered twice:\n  reader 'twin' is offered by fst-fake-twin-a 1.0 (as " in out


def test_list_plugins_shows_what_is_broken_and_why(with_fakes, fst):
    with_fakes("raises", "exits", "thief")
    done = fst("list-plugins")
    assert done.status == 0
    broken = done.out.partition("\nBroken:\n")[2].splitlines()
    assert broken[0] == "  exits of fst-fake-exits 1.0: SystemExit: 0"
    assert broken[1] == "  raises of fst-fake-raises 1.0: RuntimeError: the moon is full"
    assert broken[2].startswith("  files of fst-fake-thief 1.0: the name belongs to full-stack-")


def test_list_plugins_as_json_is_complete_and_nothing_else_is_printed():
    done = spawn("list-plugins", "--json", fakes=["prints", "raises", "needs", "twin_a", "twin_b"])
    listed = json.loads(done.out)
    by_address = {c["address"]: c for c in listed["components"]}
    assert by_address["needs/needy"] == {
        "kind": "trainer",
        "name": "needy",
        "plugin": "needs",
        "address": "needs/needy",
        "distribution": "fst-fake-needs",
        "version": "1.0",
        "state": "needs",
        "missing": ["fst_fake_absent"],
        "remedy": "pip install fst-fake-needs",
        "clashes": [],
        "summary": "Needs a package that does not exist.",
    }
    assert by_address["prints/prints"]["state"] == "ready"
    assert by_address["twin-a/twin"]["clashes"] == ["twin-b/twin of fst-fake-twin-b 2.0"]
    assert listed["broken"] == [
        {
            "plugin": "raises",
            "distribution": "fst-fake-raises",
            "version": "1.0",
            "reason": "RuntimeError: the moon is full",
        }
    ]


def test_columns_are_aligned_and_cut_only_on_a_terminal(monkeypatch):
    table = [("a", "b", "c" * 60), ("long", "", "d")]
    assert list(columns(table)) == [f"a     b  {'c' * 60}", "long     d"]
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert list(columns(table)) == [f"a     b  {'c' * 8}...", "long     d"]


# describe


def test_describe_tells_a_component_and_its_settings(with_fakes, fst):
    with_fakes("toy")
    done = fst("describe", "reader", "toy")
    assert done.status == 0
    assert done.out.startswith("reader toy: A reader to try pipelines with.\n")
    assert ["from", "fst-fake-toy 1.2"] in rows(done.out)
    assert re.search(r"file +\S+parts\.py\n", done.out)
    assert "\n  size = 4  (integer >= 1, <= 64)\n      How large.\n" in done.out
    assert '\n  color = "red"  ("red" | "green")\n' in done.out
    assert "\n  limit  (integer)\n" in done.out
    assert "\n  inner.width = 1.5  (number > 0)\n      How wide.\n" in done.out
    assert "fst_fake_toy.parts" not in sys.modules


def test_describe_marks_a_key_that_is_needed(fst):
    assert (
        "\n  train  (string or array of string, needed)\n" in fst("describe", "reader", "text").out
    )


def test_describe_a_component_without_settings(with_fakes, fst):
    with_fakes("toy")
    assert fst("describe", "model", "toy/plain").out.endswith("\nIt has no settings.\n")


def test_describe_says_what_is_missing(with_fakes, fst):
    with_fakes("needs")
    out = fst("describe", "trainer", "needy").out
    assert "needs fst_fake_absent. Install it: pip install fst-fake-needs" in out


def test_describe_an_unknown_component(fst):
    done = fst("describe", "tokenizer", "byts")
    assert done.status == 2
    assert done.err.startswith("error: unknown tokenizer 'byts'. Did you mean 'bytes'? Installed: ")


@pytest.mark.parametrize("kind", KINDS)
def test_every_bundled_component_can_be_described(fst, kind):
    for name in registry().names(kind):
        done = fst("describe", kind, name)
        assert done.status == 0
        assert "anything" not in done.out  # a type that is not told


def test_fields_are_told_in_the_order_of_the_class_nested_ones_last(with_fakes):
    cls = with_fakes("toy").find("reader", "toy").settings_class()
    told = {field.name: (field.type, field.literal) for field in fields(cls)}
    assert told == {
        "size": ("integer >= 1, <= 64", "4"),
        "rate": ("number", "0.5"),
        "loud": ("boolean", "false"),
        "word": ("string", '"toy"'),
        "place": ("path", '"toys"'),
        "words": ("array of string", '["one", "two"]'),
        "color": ('"red" | "green"', '"red"'),
        "limit": ("integer", ""),
        "period": ("integer or string", "1"),
        "inner.depth": ("integer", "1"),
        "inner.width": ("number > 0", "1.5"),
    }
    assert list(told)[-2:] == ["inner.depth", "inner.width"]


# schema


@pytest.fixture
def schema(with_fakes, fst):
    with_fakes("toy", "twin_a", "twin_b")
    return json.loads(fst("schema").out)


def test_the_schema_has_every_table_and_no_other(schema):
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(schema["properties"]) == list(TABLES)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["serve"]["type"] == "array"
    assert set(schema["properties"]["run"]["properties"]) == {"name", "seed", "root"}


def test_the_schema_chooses_a_components_settings_by_use(schema):
    chosen = [member["$ref"] for member in schema["properties"]["documents"]["oneOf"]]
    assert "#/$defs/reader.toy.toy" in chosen
    toy = schema["$defs"]["reader.toy.toy"]
    assert toy["properties"]["use"] == {"enum": ["toy", "toy/toy"]}
    assert toy["properties"]["size"]["maximum"] == 64
    assert toy["properties"]["size"]["description"] == "How large."
    assert toy["properties"]["inner"]["$ref"] == "#/$defs/reader.toy.toy.Inner"
    assert toy["additionalProperties"] is False
    assert schema["$defs"]["reader.files.text"]["required"] == ["use", "train"]
    plain = schema["$defs"]["reader.toy.plain"]
    assert list(plain["properties"]) == ["use"]
    assert plain["additionalProperties"] is False


def test_the_schema_knows_only_addresses_for_a_name_that_two_offer(schema):
    assert schema["$defs"]["reader.twin-a.twin"]["properties"]["use"] == {"enum": ["twin-a/twin"]}


def test_every_reference_of_the_schema_leads_to_a_definition(schema):
    references = re.findall(r'"\$ref": "([^"]+)"', json.dumps(schema))
    assert len(references) > 20
    assert {r.removeprefix("#/$defs/") for r in references} <= schema["$defs"].keys()


def test_the_schema_accepts_what_check_accepts_and_refuses_what_it_refuses(schema):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema)
    good = {
        "documents": {"use": "toy", "size": 3, "inner": {"depth": 2}},
        "tokenizer": {"use": "bytes"},
        "serve": [{"use": "toy/plain"}],
    }
    assert validator.is_valid(good)
    for bad in (
        {"documents": {"use": "toy", "siez": 3}},
        {"documents": {"use": "toy", "size": "3"}},
        {"documents": {"use": "absent"}},
        {"documents": {"size": 3}},
        {"documents": {"use": "toy", "inner": {"dept": 1}}},
        {"serve": {"use": "toy"}},
        {"runn": {}},
    ):
        assert not validator.is_valid(bad)


# inspect


@pytest.fixture
def artefact(tmp_path):
    directory = tmp_path / "model"
    (directory / "tokenizer").mkdir(parents=True)
    (directory / "weights").write_bytes(b"w" * 2000)
    (directory / "tokenizer" / "ids.json").write_text("{}")
    write_manifest(
        directory,
        "model",
        fingerprint="f" * 64,
        fields={"model.use": "left out"},
        components={
            "model": {
                "use": "toy",
                "plugin": "toy",
                "distribution": "fst-not-installed",
                "version": "3.1",
                "settings": {"size": 4, "word": "a\x1b[31m"},
            },
            "samplers": [{"use": "greedy", "plugin": "samplers", "settings": {}}],
        },
        counts={"parameters": 1234567},
        made_from={"dataset": {"name": "poems", "number": 2}},
    )
    return directory


def test_inspect_tells_what_an_artefact_is_and_who_made_it(fst, artefact):
    done = fst("inspect", artefact)
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"model {artefact}"
    assert "  fingerprint  ffffffffffff" in lines
    assert "model toy/toy of fst-not-installed 3.1" in lines
    assert "  word  a\\x1b[31m" in lines
    assert "sampler samplers/greedy of None None" in lines
    assert "  parameters  1,234,567" in lines
    assert "  dataset  name poems, number 2" in lines
    assert "  weights             2,000 bytes" in lines
    assert "left out" not in done.out


def test_inspect_as_json_is_the_manifest(fst, artefact):
    done = fst("inspect", artefact, "--json")
    assert json.loads(done.out) == json.loads((artefact / "fst.json").read_bytes())


def test_inspect_of_a_run_is_that_of_its_model(fst, artefact):
    assert fst("inspect", artefact.parent).out == fst("inspect", artefact).out


def test_inspect_of_a_directory_of_runs_names_the_newest(fst, artefact, tmp_path):
    run = tmp_path / "runs/poems/12"
    run.mkdir(parents=True)
    artefact.rename(run / "model")
    (tmp_path / "runs/poems/13").mkdir()
    done = fst("inspect", run.parent)
    assert done.status == 2
    assert done.err.endswith(f"it has no fst.json. Name one of those in it: the newest is {run}\n")


def test_inspect_rounds_numbers_and_cuts_long_lines(fst, artefact):
    manifest = json.loads((artefact / "fst.json").read_bytes())
    manifest["figures"] = {"steps": 500.0, "loss": 4.984055995941162, "rate": 1e-05}
    manifest["many"] = {"table": {f"key{number}": number for number in range(99)}}
    (artefact / "fst.json").write_text(json.dumps(manifest))
    lines = fst("inspect", artefact).out.splitlines()
    assert {"  steps  500", "  loss   4.9841", "  rate   1e-05"} <= set(lines)
    assert max(map(len, lines)) < 180
    [long] = [line for line in lines if "key0" in line]
    assert long.endswith("...")


def test_help_tells_where_a_plugins_command_is_explained(fst):
    assert re.search(
        r"\n  telegram +See `fst telegram --help` \(full-stack-transformer \S+\)\.\n",
        fst("--help").out,
    )


def test_inspect_verifies_every_digest_when_asked(fst, artefact):
    done = fst("inspect", artefact, "--verify")
    assert (done.status, done.err) == (0, "All 2 files are as they were written.\n")
    (artefact / "weights").write_bytes(b"x" * 2000)
    assert fst("inspect", artefact).status == 0
    done = fst("inspect", artefact, "--verify")
    assert done.status == 2
    assert done.err.startswith(
        f"error: {artefact / 'weights'}: its content is not what was written"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "damaged"),
        ("[]", "not a manifest"),
        ('{"files": {}, "schema": 99}', "written by another version of FST"),
        ('{"files": {"../x": {"bytes": 1}}, "schema": 1}', "outside of its directory"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_inspect_of_a_damaged_manifest_is_one_line(fst, artefact, text, told):
    (artefact / "fst.json").write_text(text)
    done = fst("inspect", artefact)
    assert done.status == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def test_inspect_survives_what_a_manifest_should_not_say(fst, artefact):
    said = {"schema": 1, "files": {}, "kind": 3, "components": {"model": [1, {"settings": 2}]}}
    (artefact / "fst.json").write_text(json.dumps({**said, "made_from": [], "versions": None}))
    assert fst("inspect", artefact).status == 0


def test_inspect_imports_nothing_heavy(artefact):
    code = (
        "import sys; from fst_core.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(artefact)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.endswith("[]\n")


# doctor


def test_doctor_looks_at_everything_and_ends_well(fst, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fst("doctor", "--json")
    findings = json.loads(done.out)
    assert done.status == 0
    subjects = [finding["subject"] for finding in findings]
    assert subjects[:5] == ["python", "platform", "fst", "torch", "device"]
    assert {"plugins", "disk", "directory"} <= set(subjects)
    assert not any(finding["state"] == "broken" for finding in findings)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_torch(monkeypatch):
    """Spare the second that importing torch takes."""
    monkeypatch.setattr("fst_core.cli.doctor._torch", list)


@pytest.mark.usefixtures("no_torch")
def test_doctor_ends_with_status_1_if_a_plugin_is_broken(with_fakes, fst):
    with_fakes("raises")
    done = fst("doctor")
    assert done.status == 1
    assert [
        "broken",
        "plugins",
        "raises of fst-fake-raises 1.0: RuntimeError: the moon is full",
    ] in (rows(done.out))


@pytest.mark.usefixtures("no_torch")
def test_doctor_notes_what_is_missing_and_what_clashes(with_fakes, fst):
    with_fakes("needs", "twin_a", "twin_b")
    done = fst("doctor", "--json")
    assert done.status == 0
    notes = [f["told"] for f in json.loads(done.out) if f["state"] == "note"]
    assert "pip install fst-fake-needs  for trainer needy" in notes
    assert any(note.startswith("reader 'twin' is offered by") for note in notes)


@pytest.mark.usefixtures("no_torch")
def test_doctor_finds_a_directory_that_cannot_be_written(fst, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    done = fst("doctor")
    assert done.status == 1
    assert ["broken", "directory", "cannot be written: Permission denied"] in rows(done.out)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import fst_no_such_package", "cannot be imported: ModuleNotFoundError: No module named"),
        ("import os; os._exit(3)", "cannot be imported: exit status 3"),
    ],
)
def test_doctor_survives_a_torch_that_does_not(fst, monkeypatch, code, told):
    monkeypatch.setattr("fst_core.cli.doctor._TORCH", code)
    done = fst("doctor")
    assert done.status == 1
    assert told in done.out
