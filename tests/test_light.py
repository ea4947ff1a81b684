"""What is imported when, and by whom: start-up stays light, and layers hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from fakes import environment_of, spawn

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "fst_core").rglob("*.py"))
PLUGINS = sorted(p.parent for p in (ROOT / "plugins").glob("*/__init__.py"))
HEAVY = {
    "torch", "transformers", "pytorch_lightning", "tokenizers", "fastapi", "aiogram", "pydantic", "numpy",
}  # fmt: skip

# Runs what argv[2:] asks of the command line, then writes sys.modules to the file argv[1].
RECORD = """
import sys
place, sys.argv = sys.argv[1], ["fst", *sys.argv[2:]]
if len(sys.argv) == 1:
    import fst_core
    sorted(fst_core.__all__)
else:
    from fst_core.cli import main
    try:
        main()
    except SystemExit:
        pass
open(place, "w").write("\\n".join(sys.modules))
"""


def imported_by(tmp_path, *arguments, fakes=()):
    place = tmp_path / "modules"
    subprocess.run(
        [sys.executable, "-c", RECORD, str(place), *arguments],
        env=environment_of(fakes),
        check=True,
        capture_output=True,
        timeout=60,
    )
    return set(place.read_text().split())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["--version"],
        ["list-plugins"],
        ["list-plugins", "--json"],
        ["list-plugins", "--kind", "model"],
        ["train", "--help"],
        ["generate", "--help"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(tmp_path, arguments):
    assert imported_by(tmp_path, *arguments) & HEAVY == set()


@pytest.mark.parametrize("arguments", [["check"], ["describe", "trainer", "lightning"], ["schema"]])
def test_checking_imports_no_implementation(tmp_path, arguments):
    modules = imported_by(tmp_path, *arguments)
    assert "pydantic" in modules
    assert modules & (HEAVY - {"pydantic", "numpy"}) == set()


def test_help_imports_no_plugin(tmp_path):
    modules = imported_by(tmp_path, "--help", fakes=["toy", "commands", "raises", "sleeps"])
    assert not {m for m in modules if m.startswith(("fst_fake", "fst_bytes", "fst_files"))}


def test_help_takes_less_than_a_second_whatever_is_installed():
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = spawn("--help", fakes=["raises", "syntax", "exits", "prints", "sleeps", "commands"])
        times.append(time.perf_counter() - began)
        assert done.status == 0
        assert "hello from a plugin" not in done.out + done.err
    assert min(times) < 1


# layers, by the text of the modules


def imports_of(path, *, at_module_level=False):
    """The modules that a file imports, those for type checkers left out."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def roots(modules):
    return {module.partition(".")[0] for module in modules}


PLUGIN_NAMES = {folder.name for folder in PLUGINS}


def test_there_are_files_to_look_at():
    assert len(CORE) > 40
    assert {"fst_bytes", "fst_gpt2", "fst_transformers"} <= PLUGIN_NAMES


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_core_imports_no_plugin_and_nothing_heavy_when_it_is_imported(path):
    assert roots(imports_of(path)) & PLUGIN_NAMES == set()
    if "testing" not in path.parts:
        heavy = HEAVY - {"pydantic", "numpy"}
        assert roots(imports_of(path, at_module_level=True)) & heavy == set()


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugin_imports_no_other_plugin(folder):
    for path in folder.rglob("*.py"):
        assert roots(imports_of(path)) & (PLUGIN_NAMES - {folder.name}) == set(), path


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_hook_module_imports_the_core_alone(folder):
    found = roots(imports_of(folder / "__init__.py", at_module_level=True))
    assert found <= {"fst_core", "__future__", "typing", "collections"}


SOURCES = [*CORE, *(path for folder in PLUGINS for path in sorted(folder.rglob("*.py")))]


def calls_of(path):
    """The functions that a file calls, as they are written: `torch.load`, `import_module`."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def test_code_is_imported_by_name_in_three_places_only():
    """Plugins, the command table, and the core's own lazy names: none takes a name from a file."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(c.rpartition(".")[2] in {"import_module", "__import__"} for c in calls_of(path))
    }
    allowed = {"fst_core/plugins.py", "fst_core/cli/group.py", "fst_core/__init__.py"}
    assert {path for path in found if not path.startswith("fst_core/testing/")} == allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_nothing_reads_code_out_of_a_file(path):
    assert roots(imports_of(path)) & {"pickle", "dill", "cloudpickle", "joblib", "marshal"} == set()
    forbidden = {"eval", "exec", "compile", "torch.load", "yaml.load", "pickle.load"}
    assert calls_of(path) & forbidden == set()
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert given.get("allow_pickle", "False") == "False"
            assert given.get("trust_remote_code", "False") == "False"


# packaging


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_bundled_plugin_is_an_entry_point_with_an_extra_of_its_name():
    registered = project()["entry-points"]["fst"]
    assert {name: f"fst_{name}" for name in registered} == registered
    assert set(registered.values()) == PLUGIN_NAMES
    assert registered.keys() <= project()["optional-dependencies"].keys()


def test_the_extra_all_has_what_every_bundled_plugin_needs():
    extras = project()["optional-dependencies"]
    (whole,) = extras["all"]
    named = set(whole.partition("[")[2].rstrip("]").split(","))
    plugins = {name for name in project()["entry-points"]["fst"] if extras[name]}
    # Ray is for those who have a cluster; LoRA is a part of `transformers`.
    assert named == plugins - {"ray"} | {"lora"}


def test_the_installed_entry_points_are_those_of_this_tree():
    done = spawn("list-plugins", "--json")
    plugins = {component["plugin"] for component in json.loads(done.out)["components"]}
    assert plugins == project()["entry-points"]["fst"].keys()


def test_requirements_exclude_releases_with_known_holes():
    """Floors: what an earlier release reads or runs is told in the advisories of each project."""
    floors = {
        "torch": (2, 10),
        "transformers": (5, 3),
        "safetensors": (0, 8),
        "pytorch-lightning": (2, 6, 6),
    }
    extras = project()["optional-dependencies"].values()
    found = dict.fromkeys(floors, 0)
    for requirement in {requirement for extra in extras for requirement in extra}:
        name, at_least, version = requirement.partition(">=")
        if name in floors:
            found[name] += 1
            assert at_least, requirement
            assert tuple(map(int, version.split("."))) >= floors[name], requirement
    assert all(found.values())


TROJANED = ("lightning==2.6.2", "lightning==2.6.3", "litellm==1.82.7", "litellm==1.82.8")
"""Releases that ran somebody else's code when they were imported or installed (GHSA-w37p-236h-pfx3)."""


def test_no_trojaned_release_is_asked_for():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert not set(TROJANED) & set(lines)
    extras = project()["optional-dependencies"].values()
    for requirement in {requirement for extra in extras for requirement in extra}:
        name = re.split(r"[^\w-]", requirement)[0]
        bad = [
            release.partition("==")[2] for release in TROJANED if release.startswith(f"{name}==")
        ]
        assert all(f"!={version}" in requirement for version in bad), requirement


def test_every_constraint_is_an_exact_version_once():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)
    ] == []
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names))
    assert {"torch", "transformers", "pytorch-lightning", "pydantic", "click"} <= set(names)


NO_NETWORK = """
import sys
asked = []
talks = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg")
sys.addaudithook(lambda event, arguments: asked.append(event) if event in talks else None)
from fst_core.plugins import registry
for offer in registry().offers:
    offer.implementation()
print(len(registry().offers), asked)
"""


def test_importing_every_component_connects_nowhere():
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, timeout=120, check=True
    )
    count, _, asked = done.stdout.strip().partition(" ")
    assert int(count) >= 16
    assert asked == "[]"
