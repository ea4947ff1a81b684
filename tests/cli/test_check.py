"""`fst init` writes a pipeline, and `fst check` says all that is wrong with one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from fakes import fst_fixture, spawn, with_fakes_fixture  # noqa: F401  # fixtures, by their names

from fst_core.artefacts import write_manifest
from fst_core.pipeline.pipeline import load_pipeline


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "poems"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def documents(folder):
    (folder / "documents").mkdir()
    (folder / "documents" / "rose.txt").write_text("Roses are red")


# init


def test_init_writes_a_pipeline_that_passes_check_once_there_are_documents(fst, folder):
    done = fst("init")
    assert (done.status, done.out) == (0, "")
    assert done.err == (
        "pipeline.toml is written. Put your documents in documents, then: fst check pipeline.toml\n"
    )
    done = fst("check")
    assert done.status == 2
    assert done.err.startswith(
        "pipeline.toml has 1 problem:\n  [documents] documents: no such file"
    )
    (folder / "documents").mkdir()
    (folder / "documents" / "rose.txt").write_text("Roses are red")
    assert fst("check").status == 0


def test_init_writes_the_defaults_with_only_the_important_keys_active(fst):
    fst("init")
    text = Path("pipeline.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    assert {
        name: table.get("use") for name, table in tables.items() if isinstance(table, dict)
    } == {
        "run": None,
        "documents": "text",
        "tokenizer": "bpe",
        "dataset": None,
        "model": "gpt2",
        "trainer": "lightning",
        "engine": "local",
    }
    assert tables["run"] == {"name": "poems"}
    assert set(tables["model"]) == {"use", "n_layer", "n_head", "n_embd"}
    written = load_pipeline(Path("pipeline.toml"))
    short = '[documents]\nuse = "text"\ntrain = "documents"\n[tokenizer]\nuse = "bpe"\n[model]\nuse = "gpt2"'
    Path("short.toml").write_text(short)
    defaults = load_pipeline(Path("short.toml"))
    for table in ("documents", "tokenizer", "model", "sampler", "evaluate", "engine"):
        assert [p.settings for p in written.parts(table)] == [
            p.settings for p in defaults.parts(table)
        ]
    assert written.dataset == defaults.dataset


def test_every_line_that_init_comments_out_can_be_used(fst):
    fst("init")
    text = Path("pipeline.toml").read_text("utf-8")
    commented = re.findall(r"^#(\w+) = .+$", text, re.MULTILINE)
    assert len(commented) > 25
    Path("pipeline.toml").write_text(
        re.sub(r"^#(\w+ = .+)$", r"\1", text, flags=re.MULTILINE), "utf-8"
    )
    before, after = tomllib.loads(text), load_pipeline(Path("pipeline.toml"))
    assert after.model.settings == load_pipeline(None, ["model.use=gpt2"]).model.settings
    assert after.tables.keys() == before.keys()


def test_init_explains_every_key(fst):
    fst("init")
    lines = Path("pipeline.toml").read_text("utf-8").splitlines()
    keys = [at for at, line in enumerate(lines) if re.match(r"#?\w+ =", line)]
    for at in keys:
        assert lines[at].startswith("use = ") or lines[at - 1].startswith("# "), lines[at]
    assert max(map(len, lines)) <= 100


def test_init_replaces_a_file_only_when_told_to(fst):
    Path("pipeline.toml").write_text("mine")
    done = fst("init")
    assert (done.status, Path("pipeline.toml").read_text()) == (2, "mine")
    assert done.err == "error: pipeline.toml: there already. `fst init --force` replaces it.\n"
    assert fst("init", "--force").status == 0
    assert Path("pipeline.toml").read_text("utf-8").startswith("# A pipeline of FST")


def test_init_writes_to_a_path_or_into_a_folder(fst, tmp_path):
    (tmp_path / "prose").mkdir()
    assert fst("init", tmp_path / "prose").status == 0
    assert tomllib.loads((tmp_path / "prose" / "pipeline.toml").read_text("utf-8"))["run"] == {
        "name": "prose"
    }
    assert fst("init", "small.toml").status == 0
    assert load_pipeline(Path("small.toml")).run.name == "small"
    done = fst("init", "no/such/folder.toml")
    assert (done.status, done.err) == (2, f"error: {Path('no/such')}: no such directory\n")


# check


@pytest.mark.usefixtures("documents")
def test_check_says_what_a_pipeline_consists_of(fst):
    Path("pipeline.toml").write_text('[documents]\nuse = "text"\ntrain = "documents"')
    done = fst("check", "-s", "tokenizer.use=bytes", "-s", "model.use=gpt2")
    assert (done.status, done.err) == (0, "")
    table = [line.split() for line in done.out.splitlines()]
    assert table[0] == ["pipeline.toml", "is", "ok"]
    assert [row[:2] for row in table[1:8]] == [
        ["[documents]", "text"],
        ["[tokenizer]", "bytes"],
        ["[model]", "gpt2"],
        ["[trainer]", "lightning"],
        ["[[sampler]]", "standard"],
        ["[[evaluate]]", "perplexity"],
        ["[engine]", "local"],
    ]
    assert table[8:] == [
        ["dataset", str(Path("data/datasets/poems"))],
        ["runs", str(Path("runs/poems"))],
    ]
    assert {path.name for path in Path().iterdir()} == {"documents", "pipeline.toml"}


def test_check_tells_everything_at_once(with_fakes, fst):
    with_fakes("needs")
    Path("pipeline.toml").write_text(
        '[tokenizer]\nuse = "bpe"\nvocab_sise = 1\n[model]\nuse = "gtp2"\n[trainer]\nuse = "needy"'
    )
    done = fst("check", "-s", "run.seed=x")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "pipeline.toml has 4 problems:\n"
        "  [tokenizer] vocab_sise: unknown key. Did you mean 'vocab_size'?\n"
        "  [model] use = \"gtp2\": unknown model. Did you mean 'gpt2'?\n"
        "  [trainer] trainer 'needy' needs fst_fake_absent. "
        "Install it: pip install fst-fake-needs\n"
        "  [run] seed = 'x': not an integer.\n"
    )


@pytest.mark.usefixtures("documents")
def test_check_needs_no_file_where_overrides_are_enough(fst):
    overrides = ["documents.use=text", "documents.train=documents", "tokenizer.use=bytes"]
    done = fst("check", *(part for text in overrides for part in ("-s", text)))
    assert done.status == 0
    assert done.out.startswith("the command line is ok\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "[documents]: this table is needed.\n  [tokenizer]: this table is needed."),
        (
            '[documents]\nuse = "text"\ntrain = "absent"\n[tokenizer]\nuse = "bytes"',
            "[documents] absent: no such file",
        ),
        ('[dataset]\npath = "absent"', "[dataset] path: absent: no such directory"),
    ],
)
def test_check_looks_at_what_the_pipeline_begins_from(fst, text, told):
    Path("pipeline.toml").write_text(text)
    done = fst("check")
    assert done.status == 2
    assert told in done.err


@pytest.mark.usefixtures("documents")
def test_a_device_that_is_not_here_is_told_before_any_work(fst):
    import torch

    device = "mps" if torch.cuda.is_available() else "cuda"
    Path("pipeline.toml").write_text(
        '[documents]\nuse = "text"\ntrain = "documents"\n[tokenizer]\nuse = "bytes"\n'
        f'[model]\nuse = "gpt2"\n[trainer]\nuse = "lightning"\ndevice = "{device}"\n'
    )
    told = f'[trainer] device = "{device}": torch finds none here. "auto" takes what there is'
    done = fst("check")
    assert (done.status, done.out) == (2, "")
    assert f"pipeline.toml has 1 problem:\n  {told}\n" in done.err
    for command in ("run", "train"):
        done = fst(command)
        assert (done.status, done.out) == (2, "")
        assert told in done.err
    assert {path.name for path in Path().iterdir()} == {"documents", "pipeline.toml"}
    assert fst("check", "-s", "trainer.device=auto").status == 0


def test_check_accepts_a_prepared_dataset_in_place_of_documents(fst):
    Path("made").mkdir()
    write_manifest(Path("made"), "dataset")
    Path("pipeline.toml").write_text('[dataset]\npath = "made"')
    done = fst("check")
    assert (done.status, done.err) == (0, "")
    assert ["dataset", "made"] in [line.split() for line in done.out.splitlines()]
    write_manifest(Path("made"), "model")
    assert fst("check").err.endswith(", not a dataset\n")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff", "bad.toml: not UTF-8 at byte 0"),
        (b"[run", "bad.toml: not TOML: "),
        (b"a = " + b"[" * 10_000, "bad.toml: nested too deeply"),
        (b"#" * 10_000_000, "bad.toml: longer than"),
        (b"[run]\nseed = inf", "bad.toml has 1 problem:\n  [run] seed = inf: not an integer."),
    ],
)
def test_a_bad_file_is_told_without_a_traceback_in_a_process_of_its_own(folder, content, told):
    (folder / "bad.toml").write_bytes(content)
    done = spawn("check", "bad.toml")
    assert done.status == 2
    assert told in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_names_from_a_file_cannot_move_the_cursor(fst):
    Path("pipeline.toml").write_text('["\\u001b[2J"]\n[tokenizer]\nuse = "\\u202e"', "utf-8")
    done = fst("check")
    assert done.status == 2
    assert "\x1b" not in done.err
    assert "\u202e" not in done.err
