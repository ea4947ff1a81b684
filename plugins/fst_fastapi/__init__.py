"""The frontend `fastapi`: an HTTP server of OpenAI's interface, with a page to try the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_frontends() -> Iterator[Component]:
    """Offer the frontend."""
    yield Component(
        "fastapi",
        f"{__name__}.frontend:FastapiFrontend",
        "An HTTP server of OpenAI's interface, with a page to try the model.",
        settings=f"{__name__}.settings:FastapiSettings",
        needs=("fastapi", "uvicorn", "httptools", "prometheus_client"),
    )
