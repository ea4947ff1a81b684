"""Prints when it is imported; offers the tokenizer `prints`."""

import sys

from fst_core import Component, hookimpl

sys.stdout.write("hello from a plugin\n")


@hookimpl
def fst_tokenizers():
    yield Component("prints", "fst_fake_prints:Nothing", "A tokenizer of a fake plugin.")
