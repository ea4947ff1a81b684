from fst_core import Component, hookimpl


@hookimpl
def fst_readers():
    yield Component("target", "os.system", "Not an import string.")
