"""`fst serve`: a directory without a pipeline, its options, and what it says."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from fakes import arguments_of, environment_of, spawn
from fakes.tiny import make, tiny

from fst_core.cli.serve import _default_frontend


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run's directory, made once."""
    place = tmp_path_factory.mktemp("served")
    pipeline = tiny("run.name=roses", "trainer.lightning.max_steps=2")
    done = make(place, pipeline, OMP_NUM_THREADS="1")
    assert done.status == 0, done.err
    return place / "runs/roses/1"


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def serve():
    """Start `fst serve`, and end it."""
    started = []

    def start(*arguments):
        started.append(
            subprocess.Popen(
                arguments_of("serve", *arguments),
                env=environment_of(OMP_NUM_THREADS="1"),
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def get(port, path, body=None):
    """Ask, as soon as there is somebody to answer."""
    deadline = time.monotonic() + 60
    content = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", content, {"content-type": "application/json"}
    )
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_model_without_a_pipeline_is_served_over_http(model, port, serve):
    since = time.monotonic()
    process = serve(model, "--port", port, "-s", "serve.0.log_requests=false")
    (described,) = get(port, "/v1/models")["data"]
    assert time.monotonic() - since < 30  # 5 s, on a machine that ten share
    assert described["id"] == "roses"
    assert described["max_model_len"] == 64
    assert described["sampling"]["temperature"]["default"] == 1.0
    answer = get(port, "/v1/completions", {"prompt": "roses", "max_tokens": 4, "temperature": 0})
    assert answer["usage"]["completion_tokens"] <= 4
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    lines = said.splitlines()
    assert lines[-1] == f"serve: http://127.0.0.1:{port}"
    assert len(lines) == 2


def test_a_busy_port_is_one_line(model, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = spawn("serve", model, "--port", port, OMP_NUM_THREADS="1")
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith(f"error: port {port} of 127.0.0.1: address")


def test_it_does_not_listen_beyond_this_machine_without_a_key(model):
    done = spawn("serve", model, "--host", "0.0.0.0", "--port", "0", OMP_NUM_THREADS="1")
    assert done.status == 2
    assert "allow_anonymous" in done.err


def test_a_wrong_setting_of_the_frontend_is_told_before_anything_is_loaded(model):
    done = spawn("serve", model, "-s", "serve.0.prot=1")
    assert done.status == 2
    assert "prot" in done.err
    assert "Did you mean 'port'?" in done.err
    assert spawn("serve", model, "--port", "66000").status == 2


def test_a_model_needs_a_frontend(model):
    done = spawn("serve", model, "-s", "serve=[]")
    assert (done.status, done.out) == (2, "")
    assert "by which frontend? Choose one: -s serve.0.use=NAME" in done.err


def test_the_frontend_that_is_chosen_is_the_one_that_serves(tmp_path):
    target = tmp_path / "runs/roses/3"
    (target / "model").mkdir(parents=True)
    assert _default_frontend(target, ("serve.0.use=telegram",)) == []
    assert _default_frontend(target, ("serve.0.port=1",)) == ["serve.0.use=fastapi"]
    file = tmp_path / "pipeline.toml"
    file.write_text('[model]\nuse = "gpt2"\n')
    assert _default_frontend(file, ()) == ["serve.0.use=fastapi"]
    file.write_text('[model]\nuse = "gpt2"\n[[serve]]\nuse = "telegram"\n')
    assert _default_frontend(file, ()) == []
