"""Plugins that tests install, good and bad, each a folder that lies on the path as pip would put it there.

The fixture `with_fakes` does so in this process; `spawn` runs `fst` in another one, the fixture
`fst` in this one. A test module imports the fixtures that it uses.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fst_core.cli import main
from fst_core.plugins import registry

FOLDER = Path(__file__).parent


@dataclass
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str


def arguments_of(*arguments):
    """What runs `fst` in a process of its own."""
    return [sys.executable, "-c", "from fst_core.cli import main; main()", *map(str, arguments)]


def environment_of(fakes=(), **variables):
    """The environment of a process in which fake plugins are installed."""
    path = os.pathsep.join(str(FOLDER / name) for name in fakes)
    return {**os.environ, "PYTHONPATH": path, **variables}


def spawn(*arguments, fakes=(), timeout=60, **variables):
    """Run `fst` in a process of its own, in which fake plugins are installed."""
    done = subprocess.run(
        arguments_of(*arguments),
        env=environment_of(fakes, **variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(name="with_fakes")
def with_fakes_fixture(monkeypatch):
    """Install fake plugins beside the bundled ones for one test: `registry = with_fakes("toy")`."""
    for name in ("FST_PLUGINS", "FST_STRICT_PLUGINS", "FST_TRACE_HOOKS"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)

    def installed(*names):
        others = [place for place in sys.path if "fakes" not in Path(place).parts]
        monkeypatch.setattr(sys, "path", [*(str(FOLDER / name) for name in names), *others])
        importlib.invalidate_caches()
        registry.cache_clear()
        return registry()

    yield installed
    registry.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("fst_fake"):
            del sys.modules[name]


@pytest.fixture(name="fst")
def fst_fixture(capsys):
    """Run `fst` in this process: `fst("check", path).err`."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Ended(ended.value.code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, handler)
