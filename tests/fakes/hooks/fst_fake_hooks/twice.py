from fst_core import Component, hookimpl


@hookimpl
def fst_readers():
    yield Component("twice", "fst_fake_hooks:Reader", "Once.")
    yield Component("twice", "fst_fake_hooks:Reader", "Twice.")
