from fst_core import hookimpl


@hookimpl
def fst_tokenisers():
    return []
