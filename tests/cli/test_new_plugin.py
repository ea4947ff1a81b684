"""`fst new-plugin`: what it writes works as written, and what it cannot write it refuses whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from fst_core.cli.new_plugin import TEMPLATES, command
from fst_core.components import KINDS
from fst_core.errors import UnknownComponent, UserError

PLUGINS = {kind: (kind, f"own-{kind}") for kind in KINDS}
FROM = {"tokenizer from bpe": ("bpe", "own-bpe"), "tokenizer from gpt2": ("gpt2", "own-gpt2")}
WRITTEN = [*PLUGINS, *FROM]


def new_plugin(*arguments):
    """Run the command; what it raises on purpose comes through."""
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    if isinstance(result.exception, UserError):
        raise result.exception
    return result


def install(distribution, site):
    """Do what pip would: write the metadata that pyproject.toml asks for, beside nothing else."""
    project = tomllib.loads((distribution / "pyproject.toml").read_text("utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(metadata, "utf-8")
    (info / "RECORD").write_text("", "utf-8")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")


def environment(*paths):
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "FST_STRICT_PLUGINS": "1",
        "OMP_NUM_THREADS": "1",
    }


def entries(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A distribution of each kind, and of those that build on another, by the names in WRITTEN."""
    root = tmp_path_factory.mktemp("written")
    for kind, name in PLUGINS.values():
        new_plugin(kind, name, "--directory", root)
    for base, name in FROM.values():
        new_plugin("tokenizer", name, "--from", base, "--directory", root)
    found = {what: root / f"fst-{kind}-{name}" for what, (kind, name) in PLUGINS.items()}
    return found | {what: root / f"fst-tokenizer-{name}" for what, (_, name) in FROM.items()}


@pytest.fixture(scope="module")
def installed(written):
    """The environment of a process in which all of them are installed."""
    site = written["reader"].parent / "site"
    for distribution in written.values():
        install(distribution, site)
    return environment(site, *written.values())


@pytest.fixture(scope="module")
def outcomes(written, installed):
    """What became of the tests of every distribution, run together; Counters by its folder's name."""
    root = written["reader"].parent
    report = root / "report.xml"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"),
            *("--import-mode=importlib", f"--rootdir={root}", f"--junitxml={report}"),
            *("-c", written["reader"] / "pyproject.toml"),
            *(distribution / "tests" for distribution in written.values()),
        ],
        cwd=root,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {distribution.name: Counter() for distribution in written.values()}
    for case in ET.parse(report).getroot().iter("testcase"):
        folder = case.get("classname").partition(".")[0]
        state = next((c.tag for c in case if c.tag in {"failure", "error", "skipped"}), "passed")
        found[folder][state] += 1
    return found, ran.stdout


# what is written


@pytest.mark.slow
@pytest.mark.parametrize("what", WRITTEN)
def test_the_contract_of_its_kind_passes_as_written(what, written, outcomes):
    found, output = outcomes
    counts = found[written[what].name]
    assert counts["failure"] + counts["error"] == 0, output[-8000:]
    assert counts["passed"] >= 10
    assert counts["skipped"] <= 2


@pytest.mark.parametrize("what", WRITTEN)
def test_it_is_a_whole_distribution(what, written):
    distribution = written[what]
    package = distribution.name.replace("-", "_")
    assert entries(distribution) == ["README.md", package, "pyproject.toml", "tests"]
    assert {"__init__.py", "py.typed"} < set(entries(distribution / package))
    assert entries(distribution / "tests") == ["test_conformance.py"]
    project = tomllib.loads((distribution / "pyproject.toml").read_text("utf-8"))
    kind, name = PLUGINS.get(what) or ("tokenizer", FROM[what][1])
    assert project["project"]["name"] == f"fst-{kind}-{name}"
    assert project["project"]["entry-points"] == {"fst": {name: package}}
    assert project["project"]["dependencies"][0].startswith("full-stack-transformer")
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [package]
    assert project["tool"]["pytest"]["ini_options"]["filterwarnings"] == ["error"]


@pytest.mark.parametrize("what", WRITTEN)
def test_nothing_of_a_template_is_left(what, written):
    for path in written[what].rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__":
            assert path.suffix in {".py", ".md", ".toml", ".typed"}
            assert not re.search(
                r"\$\{?\w|\bTODO\b|^\s+pass$", path.read_text("utf-8"), re.MULTILINE
            ), path


@pytest.mark.parametrize("what", WRITTEN)
def test_the_code_compiles(what, written):
    modules = list(written[what].rglob("*.py"))
    assert len(modules) >= 3
    for path in modules:
        compile(path.read_text("utf-8"), path, "exec", dont_inherit=True)


@pytest.mark.parametrize("options", [[], ["--isolated"]], ids=["its own rules", "default rules"])
@pytest.mark.parametrize("what", WRITTEN)
def test_ruff_finds_nothing(what, options, written):
    pytest.importorskip("ruff")
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", *options, "."]
    found = subprocess.run(ruff, cwd=written[what], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("what", WRITTEN)
def test_the_readme_says_how_a_pipeline_names_it(what, written):
    readme = (written[what] / "README.md").read_text("utf-8")
    name = written[what].name
    assert readme.startswith(f"# {name}\n")
    for command_line in ("pip install .", 'pip install -e ".[test]"', "pytest"):
        assert f"\n{command_line}\n" in readme
    kind, component = PLUGINS.get(what) or ("tokenizer", FROM[what][1])
    if kind == "executor":  # which no pipeline names
        assert f'registry().find("executor", "{component}")' in readme
    else:
        (table,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
        uses = [t for t in _tables(tomllib.loads(table)) if t["use"] == component]
        assert len(uses) == 1


def _tables(pipeline):
    for table in pipeline.values():
        yield from table if isinstance(table, list) else [table]


def test_list_plugins_shows_them_all_and_loads_nothing_heavy(installed):
    script = (
        "import sys; from fst_core.plugins import registry\n"
        "print(*(o.address for o in registry().offers if o.name.startswith('own-')))\n"
        "print(*{'torch', 'pydantic', 'numpy', 'tokenizers'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=installed,
        capture_output=True,
        text=True,
        check=True,
    )
    offers, heavy = ran.stdout.split("\n")[:2]
    names = [name for _, name in (*PLUGINS.values(), *FROM.values())]
    assert sorted(offers.split()) == sorted(f"{name}/{name}" for name in names)
    assert heavy == ""


def test_one_that_builds_on_bpe_subclasses_it_and_its_settings(written):
    package = written["tokenizer from bpe"] / "fst_tokenizer_own_bpe"
    module = (package / "tokenizer.py").read_text("utf-8")
    assert "from fst_gpt2 import BpeTokenizer\n" in module
    assert "class OwnBpeTokenizer(BpeTokenizer):" in module
    assert "class OwnBpeSettings(BpeSettings):" in (package / "settings.py").read_text("utf-8")
    project = tomllib.loads((package.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["dependencies"][0].startswith("full-stack-transformer[gpt2]")


FOREIGN = {
    "__init__.py": """
from fst_core import Component, hookimpl

__all__ = ["PlainTokenizer", "StiffTokenizer"]

def __getattr__(name):
    if name not in __all__:
        raise AttributeError(name)
    from fst_foreign.tokenizers import PlainTokenizer, StiffTokenizer
    return {"PlainTokenizer": PlainTokenizer, "StiffTokenizer": StiffTokenizer}[name]

@hookimpl
def fst_tokenizers():
    yield Component("plain", "fst_foreign.tokenizers:PlainTokenizer", "No settings.")
    yield Component("stiff", "fst_foreign.tokenizers:StiffTokenizer", "No `normalize`.")
""",
    "tokenizers.py": """
from fst_bytes.tokenizer import BytesTokenizer as StiffTokenizer
from fst_gpt2 import BpeTokenizer

class PlainTokenizer(BpeTokenizer):
    def __init__(self):
        super().__init__()
""",
}
FOREIGN_PROJECT = """
[project]
name = "foreign"
version = "3.1"
[project.entry-points.fst]
foreign = "fst_foreign"
"""


def test_it_builds_on_another_distributions_class_too(tmp_path):
    foreign = tmp_path / "foreign"
    (foreign / "fst_foreign").mkdir(parents=True)
    (foreign / "pyproject.toml").write_text(FOREIGN_PROJECT)
    for name, text in FOREIGN.items():
        (foreign / "fst_foreign" / name).write_text(text)
    install(foreign, tmp_path / "site")

    def fst(*arguments):
        script = "from fst_core.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", script, "new-plugin", "tokenizer", *arguments],
            cwd=tmp_path,
            env=environment(tmp_path / "site", foreign),
            capture_output=True,
            text=True,
            check=False,
        )

    refused = fst("mine", "--from", "stiff")
    assert refused.returncode == 2
    assert "StiffTokenizer of foreign 3.1 has no `normalize` to override" in refused.stderr
    assert fst("mine", "--from", "plain").returncode == 0
    mine = tmp_path / "fst-tokenizer-mine"
    project = tomllib.loads((mine / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["dependencies"][1] == "foreign>=3.1"
    install(mine, tmp_path / "site")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=mine,
        env=environment(tmp_path / "site", foreign, mine),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def test_it_prints_the_tree_and_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = new_plugin("tokenizer", "my-russian")
    assert result.exit_code == 0
    tree, _, following = result.output.partition("\nNext:\n")
    assert tree.splitlines() == [
        "fst-tokenizer-my-russian/",
        "  fst_tokenizer_my_russian/",
        "    __init__.py",
        "    py.typed",
        "    tokenizer.py",
        "  tests/",
        "    test_conformance.py",
        "  README.md",
        "  pyproject.toml",
    ]
    assert [line.strip() for line in following.splitlines()] == [
        'pip install -e "./fst-tokenizer-my-russian[test]"',
        'pytest "./fst-tokenizer-my-russian"',
        "fst list-plugins --kind tokenizer",
    ]


def test_the_longest_name_will_do(tmp_path):
    name = "a" * 64
    new_plugin("reader", name, "--directory", tmp_path)
    assert entries(tmp_path) == [f"fst-reader-{name}"]


def test_every_kind_has_templates():
    assert sorted(p.name for p in TEMPLATES.iterdir()) == sorted(
        [*KINDS, "common", "tokenizer-from"]
    )


# what is refused


@pytest.mark.parametrize(
    "name", ["My", "1st", "a_b", "a b", "", "ёлка", "a" * 65, "a-", "../up", "a/b", "a\n"]
)
def test_a_malformed_name_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="small letters, digits and hyphens"):
        new_plugin("reader", "--directory", tmp_path, "--", name)
    assert entries(tmp_path) == []


def test_a_name_that_a_component_has_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'bytes': full-stack-transformer \S+ offers a tokenizer"):
        new_plugin("tokenizer", "bytes", "--directory", tmp_path)
    assert entries(tmp_path) == []


def test_the_name_of_a_bundled_plugin_is_refused_for_every_kind(tmp_path):
    """A plugin is named as its component, and discovery refuses a bundled plugin's name."""
    with pytest.raises(UserError, match="'files': full-stack-transformer has a plugin"):
        new_plugin("frontend", "files", "--directory", tmp_path)
    assert entries(tmp_path) == []


def test_a_name_that_another_kind_has_will_do(tmp_path):
    new_plugin("sampler", "delimited", "--directory", tmp_path)
    assert entries(tmp_path) == ["fst-sampler-delimited"]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_what_is_there_already_is_not_touched(make, tmp_path):
    make(tmp_path / "fst-reader-poems")
    with pytest.raises(UserError, match="fst-reader-poems: there already"):
        new_plugin("reader", "poems", "--directory", tmp_path)
    assert entries(tmp_path) == ["fst-reader-poems"]
    assert not (tmp_path / "fst-reader-poems" / "README.md").exists()


def test_an_unknown_kind_is_refused(tmp_path):
    result = new_plugin("tokeniser", "mine", "--directory", tmp_path)
    assert result.exit_code == 2
    assert "'tokenizer'" in result.output
    assert entries(tmp_path) == []


def test_nothing_is_left_of_a_writing_that_failed(tmp_path, monkeypatch):
    write_text = Path.write_text

    def full(path, *arguments, **named):
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return write_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", full)
    result = new_plugin("reader", "poems", "--directory", tmp_path)
    assert isinstance(result.exception, OSError)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("base", ["bytes", "gtp2"])
def test_what_cannot_be_built_on_is_refused(base, tmp_path):
    with pytest.raises(UserError) as raised:
        new_plugin("tokenizer", "mine", "--from", base, "--directory", tmp_path)
    if base == "bytes":
        assert "has no public class of the tokenizer 'bytes'" in str(raised.value)
        assert str(raised.value).endswith("tokenizer gpt2, tokenizer bpe")
    else:
        assert isinstance(raised.value, UnknownComponent)
    assert entries(tmp_path) == []


def test_a_file_is_no_place_for_it(tmp_path):
    (tmp_path / "file").touch()
    result = new_plugin("reader", "poems", "--directory", tmp_path / "file")
    assert result.exit_code == 2
    assert entries(tmp_path) == ["file"]


def test_a_kind_without_public_classes_cannot_be_built_on(tmp_path):
    with pytest.raises(UserError, match=r"no public class of the sampler 'greedy'.*tokenizer bpe"):
        new_plugin("sampler", "mine", "--from", "greedy", "--directory", tmp_path)
    assert entries(tmp_path) == []
