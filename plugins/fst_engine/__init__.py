"""The engines: `local`, continuous batching in this process, and `remote`, a server elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_engines() -> Iterator[Component]:
    """Offer the engines."""
    yield Component(
        "local",
        f"{__name__}.local:LocalEngine",
        "Many requests at once over a model in this process, each with its own parameters.",
        settings=f"{__name__}.settings:LocalSettings",
        needs=("torch",),
    )
    yield Component(
        "remote",
        f"{__name__}.remote:RemoteEngine",
        "A server that speaks OpenAI's HTTP interface: FST, vLLM, llama.cpp, or OpenAI's own.",
        settings=f"{__name__}.settings:RemoteSettings",
        needs=("httpx",),
    )
