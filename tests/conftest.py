"""What all tests share."""

from __future__ import annotations

import os
import signal

import pytest

# As the command line does it: tests share their cores with others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def one_thread():
    """Torch with one thread: for modules so small that a second one only waits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
