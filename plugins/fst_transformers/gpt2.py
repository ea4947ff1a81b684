"""The model `gpt2` (Radford et al. 2019, Language Models are Unsupervised Multitask Learners)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GPT2Config

from fst_transformers.model import TransformersModel, initialise

if TYPE_CHECKING:
    import torch

    from fst_core import Tokenizer
    from fst_transformers.settings import GPT2Settings

__all__ = ["GPT2"]


class GPT2(TransformersModel):
    """Builds a GPT-2 from a config; the output layer shares the weights of the embeddings."""

    def __init__(self, settings: GPT2Settings) -> None:
        self.settings = settings

    @property
    def context_length(self) -> int:
        """The longest sequence of ids that the module takes."""
        return self.settings.n_positions

    def build(self, tokenizer: Tokenizer) -> torch.nn.Module:
        """Return a new GPT-2 for the tokenizer's ids; the caller has seeded torch.

        Raises:
            UserError: the tokenizer's control ids are not among its ids.
        """
        config = GPT2Config(
            vocab_size=tokenizer.vocab_size,
            bos_token_id=None,
            eos_token_id=None,
            **self.settings.model_dump(),
        )
        return initialise(config, tokenizer)
