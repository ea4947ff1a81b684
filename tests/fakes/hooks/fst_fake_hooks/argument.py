from fst_core import hookimpl


@hookimpl
def fst_metrics(run, step, loss):
    pass
