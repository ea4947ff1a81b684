"""Nothing leaves the machine: what is local stays local, from the documents to a served text."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest
from fakes import arguments_of
from fakes.tiny import tiny, write

# Lies on the path of every Python process of a test, workers of data loaders included.
WATCH = """
import os, socket, sys

def _watch(event, arguments):
    if event == "socket.getaddrinfo":
        said = arguments[0]
    elif event in ("socket.gethostbyname", "socket.gethostbyaddr"):
        said = arguments[-1]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if arguments[0].family == getattr(socket, "AF_UNIX", None) or not arguments[1]:
            return
        said = arguments[1][0]
    else:
        return
    said = said.decode() if isinstance(said, bytes) else str(said)
    with open(os.environ["WATCHED"], "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {event} {said}\\n")

sys.addaudithook(_watch)
with open(os.environ["WATCHED"], "a", encoding="utf-8") as file:
    file.write(f"{os.getpid()} begins -\\n")
"""
LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "None"}
PIPELINE = tiny(
    'documents.valid="train.txt"', "tokenizer.use=bpe", "tokenizer.vocab_size=300",
    'evaluate=[{use="perplexity"}]',
)  # fmt: skip


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """An empty folder, and a function that tells which hosts its processes have asked so far."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "watched").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    monkeypatch.setenv("WATCHED", str(tmp_path / "watched"))

    def told():
        lines = (tmp_path / "watched").read_text("utf-8").splitlines()
        return [tuple(line.split(" ", 2)[1:]) for line in lines]

    return told


def ends(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_the_watch_sees_what_leaves(watched):
    asks = (
        "import socket, urllib.request\n"
        "one = socket.socket(); one.settimeout(0.01)\n"
        "one.connect_ex(('192.0.2.1', 80))\n"
        "two = socket.socket(type=socket.SOCK_DGRAM)\n"
        "try: two.sendto(b'', ('192.0.2.2', 80))\n"
        "except OSError: pass\n"
        "direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
        "try: direct.open('http://none.invalid', timeout=1)\n"
        "except OSError: pass\n"
    )
    ends(sys.executable, "-c", asks)
    assert watched() == [
        ("begins", "-"),
        ("socket.connect", "192.0.2.1"),
        ("socket.sendto", "192.0.2.2"),
        ("socket.getaddrinfo", "none.invalid"),
    ]


@pytest.mark.slow
def test_nothing_leaves_the_machine_from_documents_to_a_served_text(watched, tmp_path):
    write(tmp_path, PIPELINE)
    for command in ("prepare", "train", "evaluate"):
        ends(*arguments_of(command, "pipeline.toml"))
    serving = subprocess.Popen(
        arguments_of("serve", "runs/tiny/1/model", "--port", "0"),
        stderr=subprocess.PIPE, text=True, encoding="utf-8",
    )  # fmt: skip
    try:
        address = next(line for line in serving.stderr if "http://" in line)
        url = address[address.index("http://") :].strip()
        for path, prompt in (
            ("completions", {"prompt": "http://192.0.2.1/ roses"}),
            (
                "chat/completions",
                {"messages": [{"role": "user", "content": "![](http://192.0.2.1)"}]},
            ),
        ):
            body = json.dumps({**prompt, "max_tokens": 4}).encode()
            kind = {"Content-Type": "application/json"}
            ask = urllib.request.Request(f"{url}/v1/{path}", body, kind)
            with urllib.request.urlopen(ask, timeout=60) as answer:
                assert json.load(answer)["usage"]["completion_tokens"] > 0
        serving.send_signal(signal.SIGTERM)
        serving.stderr.read()
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.stderr.close()
        serving.wait()
    told = watched()
    assert sum(event == "begins" for event, _ in told) >= 4
    assert {host for event, host in told if event != "begins"} <= LOCAL
