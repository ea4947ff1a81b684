"""A frontend: each line that a client sends is continued."""

from fst_core import Component, hookimpl


@hookimpl
def fst_frontends():
    yield Component(
        "lines",
        f"{__name__}.lines:Lines",
        "A prompt a line, over a socket on loopback.",
        settings=f"{__name__}.lines:LinesSettings",
    )
