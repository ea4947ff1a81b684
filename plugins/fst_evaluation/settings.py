"""What a pipeline may write in `[[evaluate]]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fst_core import Settings

__all__ = ["PerplexitySettings"]


class PerplexitySettings(Settings):
    """Settings of the evaluator `perplexity`."""

    batch_size: int = Field(8, ge=1)
    """How many samples are measured at once; the figures do not depend on it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
