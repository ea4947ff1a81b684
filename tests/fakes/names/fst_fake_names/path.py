"""Offers the tokenizer `../x`."""

from fst_core import Component, hookimpl


@hookimpl
def fst_tokenizers():
    yield Component("../x", "fst_fake_names:Nothing", "A tokenizer of a fake plugin.")
