"""A tiny job: a pipeline and documents from which `fst run` makes a model in seconds."""

from __future__ import annotations

import tomllib

import pytest
import tomli_w

from fakes import spawn
from fst_core.pipeline.tables import override

PIPELINE = """
[run]
name = "tiny"
[documents]
use = "delimited"
train = "train.txt"
[tokenizer]
use = "bytes"
[dataset]
max_sample_length = 32
[model]
use = "gpt2"
n_positions = 64
n_embd = 16
n_layer = 1
n_head = 2
[trainer]
use = "lightning"
batch_size = 8
[trainer.lightning]
max_steps = 3
"""
TEXT = "\n[END_OF_DOCUMENT]\n".join(f"{n} roses are red and violets are blue" for n in range(40))


def tiny(*settings):
    """The pipeline with some of its settings changed: `tiny("trainer.lightning.max_steps=2")`."""
    tables = tomllib.loads(PIPELINE)
    override(tables, settings)
    return tomli_w.dumps(tables)


def write(place, pipeline=PIPELINE, text=TEXT):
    """Write the pipeline and its documents into a folder."""
    (place / "pipeline.toml").write_text(pipeline)
    (place / "train.txt").write_text(text)


def make(place, pipeline=PIPELINE, *, timeout=120, **variables):
    """Write them, and run the pipeline there, in a process of its own."""
    write(place, pipeline)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return spawn("run", timeout=timeout, **variables)
