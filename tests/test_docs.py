"""The documents say what is so: hooks, settings, the README's commands and files."""

from __future__ import annotations

import inspect
import re
import runpy
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fakes import arguments_of

from fst_core import hookspecs
from fst_core.cli import main
from fst_core.pipeline.pipeline import check_pipeline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = ROOT / "examples/fst-tokenizer-myrussian"


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("hook", [name for name in dir(hookspecs) if name.startswith("fst_")])
def test_hooks_are_documented_with_their_arguments(hook):
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"{hook}({arguments})" in (ROOT / "docs/hooks.md").read_text("utf-8")


def test_the_settings_reference_is_current():
    generated = runpy.run_path(str(ROOT / "docs/generate.py"))["settings"]()
    assert (ROOT / "docs/settings.md").read_text("utf-8") == generated, "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists(page, capsys):
    names = set()
    for block in blocks(page.read_text("utf-8"), "console"):
        names |= set(re.findall(r"^\$ fst ([a-z-]+)", block, re.MULTILINE))
    for name in names:
        with pytest.raises(SystemExit) as exit_info:
            main([name, "--help"])
        assert exit_info.value.code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_pipeline_is_valid(page):
    tables = [tomllib.loads(block) for block in blocks(page.read_text("utf-8"), "toml")]
    for table in tables:
        if "tokenizer" in table and "model" in table:
            check_pipeline(page.name, table)


def test_the_demo_is_the_example():
    example = (ROOT / "examples/shakespeare/pipeline.toml").read_bytes()
    assert (ROOT / "fst_core/templates/shakespeare.toml").read_bytes() == example


def test_the_example_on_the_page_is_the_real_one():
    page = (ROOT / "docs/plugins.md").read_text("utf-8")
    hooks = (EXAMPLE / "fst_tokenizer_myrussian/__init__.py").read_text("utf-8")
    assert hooks[hooks.index("    yield Component(") :] in page


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path, monkeypatch):
    """Both programs, after a model was made by the complete pipeline of three tables."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documents").mkdir()
    for number in range(20):
        text = f"Poem {number}\n" + "Roses are red, violets are blue.\n" * 20
        (tmp_path / "documents" / f"{number}.txt").write_text(text)
    [pipeline] = blocks(README, "toml")
    (tmp_path / "pipeline.toml").write_text(pipeline)
    overrides = ["trainer.lightning.max_steps=3", "run.name=shakespeare", "model.n_embd=32"]
    with pytest.raises(SystemExit) as exit_info:
        main(["run", *(part for o in overrides for part in ("-s", o))])
    assert exit_info.value.code == 0
    client, engine = blocks(README, "python")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        arguments_of("serve", "runs/shakespeare/1", "--port", port),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while f":{port}" not in (line := server.stderr.readline()):
            assert line, "the server did not come up"
        for code in (client.replace("9228", str(port)), engine):
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0


@pytest.mark.parametrize(
    ("target", "command"),
    [("demo", "fst run examples/shakespeare/pipeline.toml"), ("test", "python -m pytest")],
)
def test_the_readmes_two_commands_do_what_it_says(target, command):
    assert f"$ make {target}" in README
    told = subprocess.run(
        ["make", "--dry-run", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert command in told.stdout
