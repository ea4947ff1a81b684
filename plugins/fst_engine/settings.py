"""What a pipeline may write in `[engine]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fst_core import Settings

__all__ = ["LocalSettings", "RemoteSettings"]


class LocalSettings(Settings):
    """Settings of the engine `local`; device and precision are those of a saved model."""

    device: str = Field("auto", pattern=r"^(auto|(cpu|cuda|mps)(:\d+)?)$")
    """Where a saved model computes: "cpu", "cuda", "cuda:1" or "mps"; "auto" takes the fastest there is."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """In which numbers; "auto" is bf16 where the device multiplies it natively, else fp32."""
    pack: bool = True
    """On a CPU, keep a second copy of the weights in its own layout: faster, for twice the memory."""
    max_running: int = Field(32, ge=1, le=4096)
    """How many requests share a batch."""
    max_waiting: int = Field(256, ge=1)
    """How many more may wait for a place in it; further ones are refused."""
    waiting_seconds: float = Field(120.0, gt=0)
    """How long a request may wait for that place; then it is refused."""
    stall_seconds: float = Field(10.0, gt=0)
    """After so long without a finished step, though there is work, the engine counts as dead."""
    prefill_chunk: int = Field(128, ge=32)
    """How many ids of new prompts are read between two tokens of the running requests."""
    cache_gb: float = Field(4.0, gt=0)
    """Keys and values of a batch take at most this many gigabytes; one request alone may take more."""
    prefix_gb: float = Field(0.5, ge=0)
    """Of finished texts, this many gigabytes are kept, for prompts that begin as they did; 0: none."""
    lookup: int = Field(8, ge=0, le=64)
    """Of a request that runs alone, guess so many ids at most from its own text, where that pays; 0: none."""


class RemoteSettings(Settings):
    """Settings of the engine `remote`."""

    url: str = Field(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")
    """Where the server's interface begins, as "http://localhost:8000/v1"."""
    key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The name of the environment variable that holds the key; none is sent by default."""
    model: str | None = Field(None, min_length=1)
    """The model's name there; by default the server's first."""
    timeout_seconds: float = Field(600.0, gt=0)
    """How long the server may be silent."""
    extensions: bool = True
    """Whether it takes what vLLM and FST do beyond OpenAI: further parameters, ids of tokens."""
