"""What a pipeline may write in `[[evaluate]]`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotation
from typing import Literal

from pydantic import Field

from fst_core import Settings

__all__ = ["Device", "HarnessSettings", "MemorisationSettings", "PerplexitySettings"]

Device = Literal["auto", "cpu", "cuda", "mps"]


class PerplexitySettings(Settings):
    """Settings of the evaluator `perplexity`."""

    batch_size: int = Field(8, ge=1)
    """How many samples are measured at once; the figures do not depend on it."""
    device: Device = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    max_perplexity: float | None = Field(None, ge=1)
    """A gate: a model of a higher perplexity is not served."""
    max_loss: float | None = Field(None, ge=0)
    """A gate: a model of a higher loss is not served."""
    max_bits_per_byte: float | None = Field(None, ge=0)
    """A gate: a model of more bits per byte is not served."""


class MemorisationSettings(Settings):
    """Settings of the evaluator `memorisation`."""

    number: int = Field(32, ge=1)
    """How many texts are generated."""
    prompts: tuple[str, ...] = Field(("",), min_length=1)
    """What the texts begin with, in turn; an empty one lets the model begin by itself."""
    length: int = Field(50, ge=2)
    """How many ids a span has; every span of that length in a text is looked for."""
    max_new_tokens: int = Field(200, ge=2)
    """The most ids of a text."""
    seed: int = Field(228, ge=0, lt=2**63)
    """Decides what is generated."""
    device: Device = "auto"
    """Where to generate; auto takes an accelerator if there is one."""
    max_share: float | None = Field(None, ge=0, le=1)
    """A gate: a model that repeats a larger share of spans is not served."""


class HarnessSettings(Settings):
    """Settings of the evaluator `lm-eval`."""

    tasks: tuple[str, ...] = Field(min_length=1)
    """The tasks, by the harness's names, such as ["lambada_openai", "arc_easy"]."""
    include_path: Path | None = None
    """A folder with tasks of your own, as YAML that the harness reads."""
    num_fewshot: int | None = Field(None, ge=0)
    """How many solved examples a prompt begins with; by default what the task says."""
    limit: int | None = Field(None, ge=1)
    """How many questions of each task are asked; by default all."""
    batch_size: int = Field(8, ge=1)
    """How many are asked at once."""
    device: Device = "auto"
    """Where to compute; auto takes an accelerator if there is one."""
    min: dict[str, float] = Field(default_factory=dict)
    """Gates: a model with a lower figure is not served, such as {"arc_easy/acc" = 0.3}."""
    max: dict[str, float] = Field(default_factory=dict)
    """Gates: a model with a higher figure is not served, such as {"wikitext/bits_per_byte" = 1.2}."""
