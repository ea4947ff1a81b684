"""What torch keeps of products that it has computed on a CPU."""

from __future__ import annotations

import os

__all__ = ["limit_caches"]

_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
_PRODUCTS = 128
"""More than a step has: those of a layer, each forwards and twice back, are the same in all layers."""


def limit_caches() -> None:
    """Let oneDNN keep few compiled products, unless the environment says how many, or it has begun.

    It compiles one for each shape, with room to work in, and keeps 1,024. Of ragged documents nearly
    each batch has a shape of its own, which hardly comes again: they take hundreds of megabytes and
    save no time.
    """
    for name in _VARIABLES:
        os.environ.setdefault(name, str(_PRODUCTS))
