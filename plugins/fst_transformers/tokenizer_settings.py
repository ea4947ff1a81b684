"""What a pipeline may write in `[tokenizer]` for `pretrained`."""

from __future__ import annotations

from pydantic import Field

from fst_core import Settings

__all__ = ["PretrainedTokenizerSettings"]


class PretrainedTokenizerSettings(Settings):
    """Settings of the tokenizer `pretrained`."""

    path: str = Field(min_length=1)
    """A directory, a tokenizer.json, a .gguf file, or a name on the hub; by default the model's path."""
    end_token: str | None = Field(None, min_length=1)
    """The token that ends a document; by default the one that the tokenizer's own files name."""
