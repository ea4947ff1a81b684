"""The model `pretrained`: weights that somebody trained already."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from fst_core.artefacts.digests import digest_fields, digest_file
from fst_transformers.config import CONFIG, GENERATION, context_length, read_config
from fst_transformers.frozen import freeze_layers, train_rows
from fst_transformers.gguf import read_gguf_config, read_gguf_module
from fst_transformers.lora import add_adapters, merged
from fst_transformers.model import TransformersModel, read_module, set_control_ids
from fst_transformers.quiet import quiet
from fst_transformers.source import is_gguf, locate
from fst_transformers.weights import embeddings, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core import Tokenizer
    from fst_transformers.settings import PretrainedSettings

__all__ = ["Pretrained"]


class Pretrained(TransformersModel):
    """Builds a module from a model's directory, its name on the hub, or a GGUF file."""

    def __init__(self, settings: PretrainedSettings) -> None:
        self.settings = settings

    @cached_property
    def source(self) -> Path:
        """The directory or the GGUF file; a model of the hub is fetched first.

        Raises:
            UserError: there is none.
        """
        return locate(self.settings.path)

    @cached_property
    def context_length(self) -> int:
        """The longest sequence of ids that the module takes; read without the weights.

        Raises:
            UserError: the model is not there, or damaged.
        """
        source = self.source
        config = read_gguf_config(source) if is_gguf(source) else read_config(source / CONFIG)
        return context_length(config, str(source))

    def fingerprint(self) -> str:
        """Return a digest of the config, the weights, and what says how texts end.

        Raises:
            UserError: the model is not there, or damaged.
        """
        if is_gguf(self.source):
            return digest_file(self.source)
        files = [self.source / CONFIG, *weight_files(self.source)]
        if (self.source / GENERATION).is_file():
            files.append(self.source / GENERATION)
        return digest_fields({path.name: digest_file(path) for path in files})

    def build(self, tokenizer: Tokenizer) -> torch.nn.Module:
        """Return the pretrained module, with embeddings for all of the tokenizer's ids.

        A vocabulary that fits leaves the module as it is; each id beyond begins as the mean of all.
        What the settings freeze requires no gradient; rows of ids beyond are trained in any case.

        Raises:
            UserError: the model is not there or damaged, or the tokenizer or a setting does not fit it.
        """
        source = self.source
        module = read_gguf_module(source) if is_gguf(source) else read_module(source)
        known = embeddings(module).num_embeddings
        grown = grow_embeddings(module, tokenizer.vocab_size)
        set_control_ids(module, tokenizer)
        if self.settings.lora is not None:
            add_adapters(module, self.settings.lora)
        if self.settings.freeze_n_layers:
            freeze_layers(module, self.settings.freeze_n_layers)
        train_rows(grown, known)
        module.train()
        return module

    def save(self, module: torch.nn.Module, directory: Path) -> None:
        """Write the module as `transformers` opens it, what adapters learned added to its matrices."""
        assert isinstance(module, PreTrainedModel)
        super().save(merged(module), directory)


def grow_embeddings(module: PreTrainedModel, size: int) -> list[torch.nn.Parameter]:
    """Give the module at least `size` ids; new rows of its embeddings are the mean of the old ones.

    The mean takes little probability from the ids that the model knows, where random rows can take
    nearly all of it (Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models).

    Returns:
        The parameters that have new rows.
    """
    old = embeddings(module).num_embeddings
    if size <= old:
        return []
    with quiet():
        module.resize_token_embeddings(size, mean_resizing=False)
    output = module.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers left it unannotated
    inner = embeddings(module).weight
    outer = [each for each in (output.weight, getattr(output, "bias", None)) if each is not None]
    grown = [inner, *(each for each in outer if each is not inner)]  # one where the two are tied
    with torch.no_grad():
        for parameter in grown:
            parameter[old:] = parameter[:old].double().mean(dim=0)
    return grown
