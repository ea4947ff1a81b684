"""What a pipeline may write in `[[sampler]]`, and a request may override."""

from __future__ import annotations

from pydantic import Field

from fst_core import Settings

__all__ = ["StandardSettings"]


class StandardSettings(Settings):
    """Settings of the sampler `standard`; with the defaults it changes nothing."""

    # The outer bounds keep float32 arithmetic finite; nobody needs values near them.
    temperature: float = Field(1.0, ge=0, le=100, allow_inf_nan=False)
    """Divides the logits: below 1 the likely grows likelier; 0 always takes the likeliest id."""
    top_k: int = Field(0, ge=0)
    """Keep this many of the likeliest ids; 0 keeps all."""
    top_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    """Keep the fewest likeliest ids that together have this probability; 1 keeps all."""
    min_p: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)
    """Keep the ids with at least this share of the likeliest one's probability; 0 keeps all."""
    repetition_penalty: float = Field(1.0, ge=0.01, le=100, allow_inf_nan=False)
    """Divides the positive logits of ids in the text so far, multiplies the negative; 1 is off."""
    presence_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    """Subtracted from the logits of ids that were generated already; 0 is off."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    """Subtracted from an id's logit for each time that it was generated already; 0 is off."""
