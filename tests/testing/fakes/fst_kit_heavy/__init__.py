"""A hook module that imports what it should not."""

import numpy as np

from fst_core import Component, hookimpl


@hookimpl
def fst_tokenizers():
    yield Component("heavy", "fst_core.testing.toys:ToyTokenizer", f"Loads numpy {np.e:.0f} early.")
