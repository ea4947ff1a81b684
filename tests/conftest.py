"""What all tests share."""

from __future__ import annotations

import os

import pytest

# As the command line does it: tests share their cores with others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
