"""`fst chat` in a terminal: what Ctrl-C ends there."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from fakes import environment_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such terminals")

# Whoever begins a session and opens a terminal gets its signals.
CODE = """
import os
os.close(os.open(os.ttyname(0), os.O_RDWR))
from fst_core.cli import main
main()
"""
SECONDS = 60


class Terminal:
    """A terminal in which `fst chat` runs."""

    def __init__(self, pipeline):
        import pty

        self.shown = ""
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, "chat", str(pipeline)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=environment_of(["scripted"], TERM="dumb"),
        )
        os.close(theirs)

    def type(self, text):
        os.write(self._ours, text.encode())

    def read_until(self, text):
        """Read on until the terminal shows a text, and return what came before it."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            assert select.select([self._ours], [], [], deadline - time.monotonic())[0], self.shown
            self.shown += os.read(self._ours, 65_536).decode()
        before, _, self.shown = self.shown.partition(text)
        return before

    def ends_by(self, typed):
        """Type what ends the program, and return what is shown then, and the status.

        Python may miss a signal that comes while the prompt is being written; people press again.
        """
        deadline = time.monotonic() + SECONDS
        self.type(typed)
        with suppress(OSError):  # how Linux says that the other end is closed
            while time.monotonic() < deadline:
                if select.select([self._ours], [], [], 3)[0]:
                    self.shown += os.read(self._ours, 65_536).decode()
                else:
                    self.type(typed)
        os.close(self._ours)
        return self.shown.replace("\r\n", "\n"), self.process.wait(SECONDS)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.jsonl"


@pytest.fixture
def terminal(tmp_path, log):
    pipeline = tmp_path / "pipeline.toml"
    pipeline.write_text(f'[engine]\nuse = "scripted"\nlog = "{log}"\n')
    terminal = Terminal(pipeline)
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.kill()
        terminal.process.wait()


def asked(log):
    lines = map(json.loads, log.read_text().splitlines())
    return [line["prompt"] for line in lines if line["event"] == "asked"]


def test_the_first_interrupt_ends_the_answer_and_one_at_the_prompt_the_program(terminal, log):
    terminal.read_until("> ")
    terminal.type("tokens=100000 speed=20\n")
    terminal.read_until("word3 ")
    terminal.type("\x03")
    written = "word1 word2 word3 " + terminal.read_until("\r\n").replace("^C", "")
    assert "Traceback" not in written
    terminal.read_until("> ")
    terminal.type("tokens=1\n")
    terminal.read_until("word1")
    terminal.read_until("> ")
    first, second = asked(log)
    assert first == [["user", "tokens=100000 speed=20"]]
    assert second == [*first, ["assistant", written], ["user", "tokens=1"]]
    rest, status = terminal.ends_by("\x03")
    assert rest.replace("^C", "") == "\n"
    assert status == 130


@pytest.mark.parametrize(("typed", "rest"), [("\x04", "\n"), ("/exit\n", "/exit\n")])
def test_the_end_of_the_input_and_exit_are_no_failures(terminal, typed, rest):
    terminal.read_until("> ")
    assert terminal.ends_by(typed) == (rest, 0)
