"""The model `pretrained`: weights that somebody trained already."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from fst_core.artefacts.digests import digest_fields, digest_file
from fst_transformers.config import CONFIG, context_length, read_config
from fst_transformers.gguf import read_gguf_config, read_gguf_module
from fst_transformers.model import TransformersModel, read_module, set_control_ids
from fst_transformers.quiet import quiet
from fst_transformers.source import is_gguf, locate
from fst_transformers.weights import embeddings, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

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
        """Return a digest of the config and the weights.

        Raises:
            UserError: the model is not there, or damaged.
        """
        if is_gguf(self.source):
            return digest_file(self.source)
        files = [self.source / CONFIG, *weight_files(self.source)]
        return digest_fields({path.name: digest_file(path) for path in files})

    def build(self, tokenizer: Tokenizer) -> torch.nn.Module:
        """Return the pretrained module, with embeddings for all of the tokenizer's ids.

        A vocabulary that fits leaves the module as it is; each id beyond begins as the mean of all.

        Raises:
            UserError: the model is not there or damaged, or the tokenizer does not fit it.
        """
        source = self.source
        module = read_gguf_module(source) if is_gguf(source) else read_module(source)
        grow_embeddings(module, tokenizer.vocab_size)
        set_control_ids(module, tokenizer)
        module.train()
        return module


def grow_embeddings(module: PreTrainedModel, size: int) -> None:
    """Give the module at least `size` ids; new rows of its embeddings are the mean of the old ones.

    The mean takes little probability from the ids that the model knows, where random rows can take
    nearly all of it (Hewitt 2021, Initializing New Word Embeddings for Pretrained Language Models).
    """
    old = embeddings(module).num_embeddings
    if size <= old:
        return
    with quiet():
        module.resize_token_embeddings(size, mean_resizing=False)
    output = module.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers left it unannotated
    parameters = {embeddings(module).weight, output.weight, getattr(output, "bias", None)}
    with torch.no_grad():
        for parameter in parameters - {None}:  # one where the two are tied
            parameter[old:] = parameter[:old].double().mean(dim=0)
