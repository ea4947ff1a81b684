"""Watches runs and fails every time."""

from fst_core import hookimpl


@hookimpl
def fst_metrics(metrics):
    raise RuntimeError("I do not like these figures")


@hookimpl
def fst_stage_started(stage):
    raise RuntimeError("I do not like this stage")
