"""Models and tokenizers of `transformers`: new ones from a config, pretrained ones from their files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_tokenizers() -> Iterator[Component]:
    """Offer the tokenizer."""
    yield Component(
        "pretrained",
        f"{__name__}.tokenizer:PretrainedTokenizer",
        "A model's own tokenizer, from a directory, a tokenizer.json, a hub name or a GGUF file.",
        settings=f"{__name__}.tokenizer_settings:PretrainedTokenizerSettings",
        needs=("tokenizers", "transformers"),
    )


@hookimpl
def fst_models() -> Iterator[Component]:
    """Offer the models."""
    yield Component(
        "gpt2",
        f"{__name__}.gpt2:GPT2",
        "A new GPT-2 of any size.",
        settings=f"{__name__}.settings:GPT2Settings",
        needs=("torch", "transformers"),
    )
    yield Component(
        "llama",
        f"{__name__}.llama:Llama",
        "A new Llama of any size.",
        settings=f"{__name__}.settings:LlamaSettings",
        needs=("torch", "transformers"),
    )
    yield Component(
        "pretrained",
        f"{__name__}.pretrained:Pretrained",
        "A pretrained model, from a directory, a hub name or a GGUF file.",
        settings=f"{__name__}.settings:PretrainedSettings",
        needs=("torch", "transformers"),
    )
