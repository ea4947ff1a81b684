"""What a pipeline may write in `[[sampler]]`, and a request may override."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fst_core import Settings

__all__ = ["StandardSettings"]

Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1, max_length=100)]


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
    typical_p: float = Field(1.0, gt=0, le=1, allow_inf_nan=False)
    """Keep the ids that surprise as much as is expected, up to this probability; 1 keeps all."""
    repetition_penalty: float = Field(1.0, ge=0.01, le=100, allow_inf_nan=False)
    """Divides the positive logits of ids in the text so far, multiplies the negative; 1 is off."""
    presence_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    """Subtracted from the logits of ids that were generated already; 0 is off."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2, allow_inf_nan=False)
    """Subtracted from an id's logit for each time that it was generated already; 0 is off."""
    logit_bias: dict[int, Bias] = Field(default_factory=dict, max_length=1000)
    """Added to the logits of these ids: -100 rules one out, 100 all others."""
    ignored_words: tuple[Word, ...] = Field((), max_length=100)
    """Words that are never completed, as the tokenizer writes them with or without a space before."""
