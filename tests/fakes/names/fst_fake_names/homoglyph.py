"""Offers a tokenizer whose name looks like `bytes`."""

from fst_core import Component, hookimpl


@hookimpl
def fst_tokenizers():
    yield Component("byt\u0435s", "fst_fake_names:Nothing", "A tokenizer of a fake plugin.")
