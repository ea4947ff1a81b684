"""Offers a component of every kind, and watches runs."""

from fst_core import Component, hookimpl

KINDS = (
    ("reader", "Reader"),
    ("tokenizer", "Tokenizer"),
    ("model", "Model"),
    ("trainer", "Trainer"),
    ("sampler", "Sampler"),
    ("evaluator", "Evaluator"),
    ("engine", "Engine"),
    ("executor", "Executor"),
    ("frontend", "Frontend"),
)
SEEN = []


def _component(kind):
    yield Component(
        "toy",
        f"{__name__}.parts:Toy",
        f"A {kind} to try pipelines with.",
        settings=f"{__name__}.settings:ToySettings",
    )
    yield Component("plain", f"{__name__}.parts:Plain", f"A {kind} without settings.")


@hookimpl
def fst_readers():
    return _component("reader")


@hookimpl
def fst_tokenizers():
    return _component("tokenizer")


@hookimpl
def fst_models():
    return _component("model")


@hookimpl
def fst_trainers():
    return _component("trainer")


@hookimpl
def fst_samplers():
    return _component("sampler")


@hookimpl
def fst_evaluators():
    return _component("evaluator")


@hookimpl
def fst_engines():
    return _component("engine")


@hookimpl
def fst_executors():
    return _component("executor")


@hookimpl
def fst_frontends():
    return _component("frontend")


@hookimpl
def fst_stage_started(run, stage):
    SEEN.append(("started", run.name, stage))


@hookimpl
def fst_stage_finished(artefact, run):  # fewer arguments, in another order
    SEEN.append(("finished", run.name, artefact))


@hookimpl
def fst_stage_failed(error):
    SEEN.append(("failed", error))


@hookimpl
def fst_metrics(run, step, metrics):
    SEEN.append(("metrics", run.name, step, metrics))
