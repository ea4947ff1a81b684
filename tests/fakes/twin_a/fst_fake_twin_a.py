"""Offers the reader `twin`."""

from fst_core import Component, hookimpl


@hookimpl
def fst_readers():
    yield Component("twin", "fst_fake_twin_a:Nothing", "A reader of a fake plugin.")
