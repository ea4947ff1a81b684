"""Takes the name of a bundled plugin and of a bundled command; offers the reader `text`."""

from fst_core import Component, hookimpl


@hookimpl
def fst_readers():
    yield Component("text", "fst_fake_thief:Nothing", "A reader of a fake plugin.")
