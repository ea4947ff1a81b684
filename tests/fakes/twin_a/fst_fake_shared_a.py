"""Offers the sampler `shared`."""

from fst_core import Component, hookimpl


@hookimpl
def fst_samplers():
    yield Component("shared", "fst_fake_shared_a:Nothing", "A sampler of a fake plugin.")
