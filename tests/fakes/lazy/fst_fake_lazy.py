"""Has a lazy name, as PEP 562 allows; to ask for what it does not define is an error here."""

from fst_core import Component, hookimpl


@hookimpl
def fst_readers():
    yield Component("lazy", "fst_fake_lazy:Reader", "Beside a lazy name.")


def __dir__():
    return ["Reader", "fst_readers"]


def __getattr__(name):
    raise AssertionError(f"somebody looked for {name}, which may import what is heavy")
