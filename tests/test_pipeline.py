"""pipeline.toml: which tables become which parts, what overrides change, and how mistakes are told."""

from __future__ import annotations

import random
import sys
import time
import tomllib
from pathlib import Path

import pytest
from fakes import fst_fixture, with_fakes_fixture  # noqa: F401  # fixtures, by their names

from fst_core.errors import SettingsError, UserError
from fst_core.pipeline.pipeline import TABLES, check_pipeline, default_name, load_pipeline
from fst_core.pipeline.tables import override, read_tables

TOY = """\
[run]
name = "poems"
[documents]
use = "toy"
size = 7
[tokenizer]
use = "toy/toy"
[dataset]
max_sample_length = 64
[model]
use = "toy"
inner = { depth = 2 }
[trainer]
use = "toy"
[trainer.inner]
depth = 3
[[sampler]]
use = "plain"
[[sampler]]
use = "toy"
[[evaluate]]
use = "plain"
[engine]
use = "toy"
[[serve]]
use = "toy"
word = "hello"
"""

TOKENIZERS = "Installed tokenizers: bpe, bytes, gpt2, plain, pretrained, toy"


@pytest.fixture(autouse=True)
def toy(with_fakes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return with_fakes("toy")


def written(text, name="pipeline.toml"):
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(text, *overrides, **options):
    with pytest.raises(UserError) as raised:
        load_pipeline(written(text), overrides, **options)
    return str(raised.value)


def lines(text, *overrides, **options):
    """What is told below the line that counts the problems."""
    head, *rest = told(text, *overrides, **options).split("\n  ")
    assert head == f"pipeline.toml has {len(rest)} problem{'s' if len(rest) != 1 else ''}:"
    return rest


# what a file means


def test_every_table_becomes_its_part():
    pipeline = load_pipeline(written(TOY))
    assert pipeline.documents.settings.size == 7
    assert pipeline.tokenizer.offer.address == "toy/toy"
    assert pipeline.model.settings.inner.depth == 2
    assert pipeline.trainer.settings.inner.depth == 3
    assert [part.offer.name for part in pipeline.samplers] == ["plain", "toy"]
    assert pipeline.samplers[0].settings is None
    assert [part.offer.kind for part in pipeline.evaluators] == ["evaluator"]
    assert pipeline.engine.build().settings == pipeline.engine.settings
    assert pipeline.frontends[0].settings.word == "hello"
    assert pipeline.datasets == Path("data/datasets/poems")
    assert pipeline.runs == Path("runs/poems")
    assert "fst_fake_toy.parts" in sys.modules  # built just now, and not before


def test_reading_a_pipeline_imports_no_implementation():
    load_pipeline(written(TOY), needs=True)
    assert "fst_fake_toy.settings" in sys.modules
    assert "fst_fake_toy.parts" not in sys.modules


def test_three_tables_are_enough():
    pipeline = load_pipeline(
        written('[documents]\nuse = "toy"\n[tokenizer]\nuse = "bytes"\n[model]\nuse = "gpt2"')
    )
    chosen = {
        table: [p.offer.name for p in pipeline.parts(table)] for table, k in TABLES.items() if k
    }
    assert chosen == {
        "documents": ["toy"],
        "tokenizer": ["bytes"],
        "model": ["gpt2"],
        "trainer": ["lightning"],
        "sampler": ["standard"],
        "evaluate": ["perplexity"],
        "engine": ["local"],
        "serve": [],
    }


def test_a_pipeline_without_a_model_only_prepares():
    pipeline = load_pipeline(written('[documents]\nuse = "toy"\n[tokenizer]\nuse = "bytes"'))
    assert pipeline.parts("trainer", "sampler", "evaluate", "engine") == []


def test_settings_of_the_default_trainer_need_no_use():
    text = '[model]\nuse = "toy"\n[trainer]\nbatch_size = 3\n[trainer.lightning]\nmax_epochs = 2'
    trainer = load_pipeline(written(text)).trainer
    assert (trainer.settings.batch_size, trainer.settings.lightning.max_epochs) == (3, 2)


def test_an_empty_list_of_samplers_or_evaluators_means_none():
    text = 'sampler = []\nevaluate = []\n[model]\nuse = "toy"'
    pipeline = load_pipeline(written(text))
    assert pipeline.samplers == pipeline.evaluators == ()


@pytest.mark.parametrize("use", ["pretrained", "transformers/pretrained"])
def test_a_pretrained_tokenizer_lies_where_its_model_does(use):
    model = '[model]\nuse = "pretrained"\npath = "here"\n'
    pipeline = load_pipeline(written(f'{model}[tokenizer]\nuse = "{use}"'))
    assert str(pipeline.tokenizer.settings.path) == "here"
    other = load_pipeline(written(f'{model}[tokenizer]\nuse = "{use}"\npath = "there"'))
    assert str(other.tokenizer.settings.path) == "there"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("poems/pipeline.toml", "poems"),
        ("poems/small.toml", "small"),
        ("стихи/pipeline.toml", "стихи"),
        ("a b/..hidden !.toml", "hidden--"),
        ("x/" + "y" * 200 + ".toml", "y" * 100),
        (None, "run"),
    ],
)
def test_a_run_is_named_as_its_file_or_its_folder(path, name):
    assert default_name(path and Path(path)) == name


def test_a_byte_order_mark_and_windows_line_ends_are_read():
    text = b"\xef\xbb\xbf" + TOY.replace("\n", "\r\n").encode()
    assert load_pipeline(written(text)).run.name == "poems"


# what is wrong with it


def test_all_problems_are_told_at_once():
    text = """\
[tokenizer]
use = "bpe"
vocab_sise = 1000
[trainer]
use = "lightning"
batch_size = "many"
[model]
use = "gtp2"
"""
    assert told(text) == (
        "pipeline.toml has 3 problems:\n"
        "  [tokenizer] vocab_sise: unknown key. Did you mean 'vocab_size'?\n"
        "  [trainer] batch_size = 'many': not an integer.\n"
        "  [model] use = \"gtp2\": unknown model. Did you mean 'gpt2'?"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[runn]\nname = "x"', "[runn]: unknown table. Did you mean 'run'?"),
        ("[a.b]", "[a]: unknown table."),
        ('["a\\nb"]', '["a\\nb"]: unknown table.'),
        ("seed = 3", "seed: outside of any table. It belongs below [run] or another one."),
        ("run = 3", "[run]: not a table."),
        ("model = 3", "[model]: not a table."),
        ("tokenizer = []", "[tokenizer]: not a table."),
        ("[run]\nnmae = 3", "[run] nmae: unknown key. Did you mean 'name'?"),
        ('[run]\nname = "a/b"', "[run] name = 'a/b': does not match ^[\\w][\\w.-]{0,99}$."),
        ('[run]\nname = ".."', "[run] name = '..': does not match ^[\\w][\\w.-]{0,99}$."),
        ("[run]\nseed = -1", "[run] seed = -1: should be greater than or equal to 0."),
        ("[run]\nseed = 1.5", "[run] seed = 1.5: not an integer."),
        ("[dataset]\nvalid_share = inf", "[dataset] valid_share = inf: should be a finite number."),
        ("[dataset]\nvalid_share = nan", "[dataset] valid_share = nan: should be a finite number."),
        (
            "[dataset]\nmin_sample_length = 9\nmax_sample_length = 8",
            "[dataset] min_sample_length = 9: more than max_sample_length, which is 8.",
        ),
        (
            "[tokenizer]",
            f"[tokenizer] use: this key is needed. {TOKENIZERS}",
        ),
        (
            "[tokenizer]\nuse = ['toy']",
            f"[tokenizer] use: not a string. {TOKENIZERS}",
        ),
        (
            '[tokenizer]\nuse = "os:system"',
            f'[tokenizer] use = "os:system": unknown tokenizer. {TOKENIZERS}',
        ),
        (
            '[documents]\nuse = "plain"\nsize = 1',
            "[documents] size: 'plain' has no settings.",
        ),
        ('[sampler]\nuse = "toy"', "[sampler]: write it as [[sampler]]: there may be several."),
        ("sampler = [3]", "[[sampler]]: not a table."),
        (
            '[[serve]]\nuse = "toy"\n[[serve]]\nuse = "toy"\nsize = 0',
            "[serve.1] size = 0: should be greater than or equal to 1.",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(text, line):
    assert lines(text) == [line]


def test_a_component_of_a_broken_plugin_names_its_distribution_and_version(with_fakes):
    with_fakes("toy", "raises")
    (line,) = lines('[tokenizer]\nuse = "raises"')
    assert line.startswith('[tokenizer] use = "raises": unknown tokenizer. Installed')
    assert line.endswith(
        "Plugin 'raises' of fst-fake-raises 1.0 is broken: RuntimeError: the moon is full"
    )


def test_a_suggestion_and_a_broken_plugin_are_two_sentences(with_fakes):
    with_fakes("toy", "raises")
    (line,) = lines('[tokenizer]\nuse = "byte"')
    assert "unknown tokenizer. Did you mean 'bytes'? Plugin 'raises' of fst-fake-raises" in line


def test_a_broken_plugin_that_nothing_names_does_no_harm(with_fakes):
    with_fakes("toy", "raises", "exits")
    assert load_pipeline(written(TOY)).run.name == "poems"


def test_a_name_that_two_plugins_offer_is_told_with_both_addresses(with_fakes):
    with_fakes("toy", "twin_a", "twin_b")
    (line,) = lines('[documents]\nuse = "twin"')
    assert line.startswith(
        "[documents] use = \"twin\": reader 'twin' is offered by fst-fake-twin-a"
    )
    assert load_pipeline(written('[documents]\nuse = "twin-b/twin"')).documents


def test_settings_that_cannot_be_imported_are_told_as_the_plugins_fault(with_fakes):
    with_fakes("needs")
    (line,) = lines('[trainer]\nuse = "unset"')
    assert "trainer 'needs/unset' of fst-fake-needs 1.0 cannot be imported" in line


def test_missing_packages_are_told_with_all_other_problems(with_fakes):
    with_fakes("needs")
    text = '[run]\nnmae = 1\n[trainer]\nuse = "needy"'
    assert lines(text, needs=True) == [
        "[run] nmae: unknown key. Did you mean 'name'?",
        "[trainer] trainer 'needy' needs fst_fake_absent. Install it: pip install fst-fake-needs",
    ]


def test_a_stage_requires_its_tables_and_their_packages(with_fakes):
    with_fakes("toy", "needs")
    pipeline = load_pipeline(written('[trainer]\nuse = "needy"\n[documents]\nuse = "toy"'))
    pipeline.require("documents")
    with pytest.raises(SettingsError) as raised:
        pipeline.require("documents", "tokenizer", "trainer")
    assert raised.value.problems == (
        "[tokenizer]: this table is needed.",
        "[trainer] trainer 'needy' needs fst_fake_absent. Install it: pip install fst-fake-needs",
    )


def test_tables_that_come_from_elsewhere_are_checked_alike():
    with pytest.raises(SettingsError, match=r"a model has 1 problem:\n  \[engine\] wodr: unknown"):
        check_pipeline("a model", {"engine": {"use": "toy", "wodr": "x"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfe", "pipeline.toml: not UTF-8 at byte 0"),
        (b"[run]\nname = '\xd1'", "pipeline.toml: not UTF-8 at byte 14"),
        (
            "[run",
            "pipeline.toml: not TOML: Expected ']' at the end of a table declaration (at end ",
        ),
        ("[run]\nname = x", "pipeline.toml: not TOML: Invalid value (at line 2, column 8)"),
        ("[run]\n[run]", "pipeline.toml: not TOML: Cannot declare ('run',) twice (at line 2, "),
        ("x = " + "9" * 5000, "pipeline.toml: not TOML: Exceeds the limit"),
        ("[run]\nseed = 99999999999999999999", "pipeline.toml: run.seed: an integer of more than"),
        ("[run]\nseed = 0x" + "f" * 5000, "pipeline.toml: run.seed: an integer of more than 64"),
        ('[run]\nroot = "a\\u0000b"', "pipeline.toml: run.root: a string with a NUL"),
        ("a = " + "[" * 10_000, "pipeline.toml: nested too deeply"),
        ("a = " + "{a=" * 10_000, "pipeline.toml: nested too deeply"),
        (".".join("a" * 10_000) + " = 1", "pipeline.toml: nested too deeply"),
        ("a." * 40 + "a = 1", "pipeline.toml: nested too deeply"),
        ("#" * 10_000_000, "pipeline.toml: longer than 262144 bytes: not a pipeline"),
    ],
)
def test_what_is_no_pipeline_is_told_in_one_line_within_a_second(text, message):
    began = time.perf_counter()
    line = told(text)
    assert time.perf_counter() - began < 1
    assert line.startswith(message)
    assert "\n" not in line
    assert len(line) < 300


def test_a_missing_file_is_told_with_what_writes_one():
    with pytest.raises(UserError, match=r"^absent\.toml: no such file\. `fst init` writes"):
        load_pipeline(Path("absent.toml"))


def test_a_folder_is_no_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"Is a directory|Permission denied"):
        load_pipeline(tmp_path)


def mutated(rng, text):
    """Change a few bytes, or move, repeat or drop a few lines."""
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 20)]
            case 2:
                data[at:at] = rng.choice(SNIPPETS).encode()
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 60)]
            case 4:
                values = [b"inf", b"nan", b"-1", b"1e400", b"true", b"[]", b"{}", b"1979-05-27"]
                line_end = data.find(b"\n", at)
                equals = data.find(b"=", at)
                if -1 < equals < line_end:
                    data[equals + 1 : line_end] = b" " + rng.choice(values)
    return bytes(data)


SNIPPETS = [
    "[", "]", "[[", "]]", "=", '"', "'", '"""', "\\", "\\u", "\n", "\r", "\0", "#", ".", ",", "{", "}",
    "inf", "nan", "[run]\n", "[[model]]\n", "use = 3\n", 'use = "toy"\n', "size = 1e99\n", "ё", "\u202e",
    "seed = 9223372036854775808\n", "inner.depth = 1\n", "inner = []\n", '"" = 1\n', "0x", "1_000",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_a_mutated_pipeline_is_read_or_told_in_short_lines_within_a_second(fst, seed):
    rng = random.Random(seed)
    statuses = []
    for _ in range(100):
        path = written(mutated(rng, TOY))
        began = time.perf_counter()
        done = fst("check", path)
        assert time.perf_counter() - began < 1
        statuses.append(done.status)
        if done.status:
            first, *problems = done.err.splitlines()
            assert "pipeline.toml" in first
            assert ("has" in first) == bool(problems)
            assert all(len(line) < 400 for line in (first, *problems))
    assert set(statuses) <= {0, 2}
    assert statuses.count(2) > 50


# overrides


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run.seed=3", {"run": {"seed": 3}}),
        (" run.seed = 3 ", {"run": {"seed": 3}}),
        ("run.name=poems", {"run": {"name": "poems"}}),
        ("run.name=a # b", {"run": {"name": "a # b"}}),
        ("run.name=a=b", {"run": {"name": "a=b"}}),
        ('run.name="3"', {"run": {"name": "3"}}),
        ("run.name=", {"run": {"name": ""}}),
        ("run.name=1\nb = 2", {"run": {"name": "1\nb = 2"}}),
        ("a.b=[1, 2]", {"a": {"b": [1, 2]}}),
        ("a.b=true", {"a": {"b": True}}),
        ("a.b={c = 1}", {"a": {"b": {"c": 1}}}),
        ("a.b=[1,", {"a": {"b": "[1,"}}),
        ("serve.0.port=8000", {"serve": [{"port": 8000}]}),
        ("a.b.c.d=1", {"a": {"b": {"c": {"d": 1}}}}),
    ],
)
def test_an_override_sets_one_key(text, expected):
    tables = {}
    override(tables, [text])
    assert tables == expected


def test_another_component_keeps_the_settings_that_it_has_too():
    files = {"train": "a.txt", "valid": "b.txt", "encoding": "cp1251"}
    tables = {
        "documents": {"use": "delimited", **files, "end_of_document": "---"},
        "sampler": [
            {"use": "standard", "top_k": 8, "ignored_words": ["a"]},
            {"use": "toy", "size": 8},
        ],
        "dataset": {"executor": {"use": "ray", "workers": 2}, "name": "x"},
    }
    override(
        tables,
        [
            "documents.text_field=t", "documents.use=jsonl", "sampler.0.use=plain",
            "sampler.1.use='toy'", "dataset.executor.use=local",
        ],
    )  # fmt: skip
    assert tables == {
        "documents": {"use": "jsonl", **files, "text_field": "t"},
        "sampler": [{"use": "plain"}, {"use": "toy", "size": 8}],
        "dataset": {"executor": {"use": "local", "workers": 2}, "name": "x"},
    }
    tables = {"documents": {"use": "files/text", **files}}
    override(tables, ["documents.use=text"])
    assert tables == {"documents": {"use": "text", **files}}


def test_a_component_that_there_is_not_keeps_nothing_and_is_told():
    (line,) = lines(TOY, "documents.use=none")
    assert line.startswith('[documents] use = "none": unknown reader. Installed readers: ')


def test_overrides_change_what_the_file_says_in_their_order():
    pipeline = load_pipeline(
        written(TOY),
        [
            "documents.size=8",
            "documents.size=9",
            "trainer.inner.depth=4",
            "sampler.1.word=x",
            "serve.1.use=plain",
            'documents.words=["a"]',
            "documents.words.0=b",
        ],
    )
    assert pipeline.documents.settings.size == 9
    assert pipeline.documents.settings.words == ("b",)
    assert pipeline.trainer.settings.inner.depth == 4
    assert pipeline.samplers[1].settings.word == "x"
    assert [part.offer.name for part in pipeline.frontends] == ["toy", "plain"]


def test_overrides_are_checked_as_the_file_is():
    assert lines(TOY, "documents.size=many", "trainer.siez=1") == [
        "[documents] size = 'many': not an integer.",
        "[trainer] siez: unknown key. Did you mean 'size'?",
    ]


def test_overrides_alone_are_a_pipeline():
    overrides = ["documents.use=toy", "tokenizer.use=bytes", "run.name=x"]
    assert load_pipeline(None, overrides).documents.offer.name == "toy"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed", "-s seed: not of the form key=value"),
        ("=3", "-s =3: not of the form key=value"),
        ("run..seed=3", "-s run..seed=3: not of the form key=value"),
        ("run.name.x=3", "-s run.name.x: 'run.name' is a value, not a table"),
        ("sampler.5.use=x", "-s sampler.5.use: '5' is no entry of an array of 2"),
        (
            "sampler.use=x",
            "-s sampler.use: there may be several: name one by its number, as sampler.0.use",
        ),
    ],
)
def test_an_override_that_leads_nowhere_is_told(text, problem):
    assert told(TOY, text) == f"the command line has 1 problem:\n  {problem}"


def test_an_override_of_a_strange_value_is_told():
    for value in ("9" * 30, "0x" + "f" * 5000):
        with pytest.raises(UserError, match=r"run\.seed: an integer of more than 64 bits"):
            read_tables(None, [f"run.seed={value}"])
    with pytest.raises(UserError, match="not UTF-8"):
        read_tables(None, ["run.name=\udcff"])


def test_the_tables_are_kept_as_written():
    pipeline = load_pipeline(written(TOY), ["run.seed=3"])
    expected = tomllib.loads(TOY)
    expected["run"]["seed"] = 3
    assert pipeline.tables == expected
