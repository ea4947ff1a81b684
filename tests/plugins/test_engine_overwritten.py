"""A model whose file is overwritten or cut while it is served goes on as it was (X3)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fakes import tiny

SERVED = """
import asyncio, os, sys
from pathlib import Path
from fst_core import Request
from fst_core.pipeline.target import open_engine

async def main():
    engine = open_engine("runs/tiny/1/model", ["engine.precision=fp32", "engine.device=cpu"])
    asked = Request("roses", 12, parameters={"temperature": 0.0})
    before = await engine.generate(asked)
    weights = Path("runs/tiny/1/model/model.safetensors")
    if sys.argv[1] == "zeros":
        with weights.open("r+b") as file:
            file.write(bytes(weights.stat().st_size))
    else:
        os.truncate(weights, 100)
    assert (await engine.generate(asked)).ids == before.ids
    await engine.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["zeros", "cut"])
def test_a_model_that_is_overwritten_in_its_place_is_served_as_it_was(tmp_path, how):
    assert tiny.make(tmp_path).status == 0
    command = [sys.executable, "-c", SERVED, how]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
