"""What a pipeline may write in `[engine]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fst_core import Settings

__all__ = ["LocalSettings"]


class LocalSettings(Settings):
    """Settings of the engine `local`; device and precision are those of a saved model."""

    device: str = Field("auto", pattern=r"^(auto|(cpu|cuda|mps)(:\d+)?)$")
    """Where a saved model computes: "cpu", "cuda", "cuda:1" or "mps"; "auto" takes the fastest there is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """In which numbers; "auto" is bf16 where the device multiplies it natively, else fp32."""
    max_running: int = Field(16, ge=1, le=4096)
    """How many requests share a batch."""
    max_waiting: int = Field(256, ge=1)
    """How many more may wait for a place in it; further ones are refused."""
    prefill_chunk: int = Field(128, ge=32)
    """How many ids of new prompts are read between two tokens of the running requests."""
    cache_gb: float = Field(4.0, gt=0)
    """Keys and values of a batch take at most this many gigabytes; one request alone may take more."""
