"""The model `llama` (Touvron et al. 2023, LLaMA: Open and Efficient Foundation Language Models)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import LlamaConfig

from fst_transformers.model import TransformersModel, initialise

if TYPE_CHECKING:
    import torch

    from fst_core import Tokenizer
    from fst_transformers.settings import LlamaSettings

__all__ = ["Llama"]


class Llama(TransformersModel):
    """Builds a Llama from a config."""

    def __init__(self, settings: LlamaSettings) -> None:
        self.settings = settings

    @property
    def context_length(self) -> int:
        """The longest sequence of ids that the module takes."""
        return self.settings.max_position_embeddings

    def build(self, tokenizer: Tokenizer) -> torch.nn.Module:
        """Return a new Llama for the tokenizer's ids; the caller has seeded torch.

        Raises:
            UserError: the tokenizer's control ids are not among its ids.
        """
        fields = self.settings.model_dump(exclude={"rope_theta"})
        rope = {"rope_type": "default", "rope_theta": self.settings.rope_theta}
        # No pad id yet: its embedding would begin at zero and stay there, and it may be the end id too.
        config = LlamaConfig(
            vocab_size=tokenizer.vocab_size,
            bos_token_id=None,
            eos_token_id=None,
            rope_parameters=rope,
            **fields,
        )
        return initialise(config, tokenizer)
