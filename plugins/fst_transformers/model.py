"""What the models share: how a module of `transformers` is made, saved and loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from fst_core import Model
from fst_core.errors import ArtefactError, UserError
from fst_core.tokenizer_json import read_json
from fst_transformers.config import CONFIG, GENERATION, read_config
from fst_transformers.quiet import quiet
from fst_transformers.weights import WEIGHTS, assemble, embeddings, read_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from transformers import PreTrainedConfig

    from fst_core import Tokenizer

__all__ = ["TransformersModel", "initialise", "read_module", "set_control_ids"]


class TransformersModel(Model):
    """Saves and loads modules of `transformers`, whichever architecture they have."""

    def save(self, module: torch.nn.Module, directory: Path) -> None:
        """Write config.json, generation_config.json and model.safetensors: the same bytes each time."""
        assert isinstance(module, PreTrainedModel)
        with quiet():
            module.save_pretrained(directory, max_shard_size=sys.maxsize)  # one file, however large

    @classmethod
    def load(cls, directory: Path) -> torch.nn.Module:
        """Read a module that `save` wrote, on the CPU, in the dtype it has on disk.

        Raises:
            ArtefactError: a file is missing, damaged or outside of the directory, or names code.
        """
        for name in (CONFIG, WEIGHTS, GENERATION):
            if not (directory / name).resolve().is_relative_to(directory.resolve()):
                raise ArtefactError(f"{directory / name}: leads outside of {directory}")
            if name != GENERATION and not (directory / name).is_file():
                raise ArtefactError(f"{directory / name}: missing; the model is damaged")
        return read_module(directory)


def initialise(config: PreTrainedConfig, tokenizer: Tokenizer) -> PreTrainedModel:
    """Return a module of random weights, from torch's generator, for the tokenizer's ids.

    Raises:
        UserError: the tokenizer's control ids are not among its ids.
    """
    with quiet():
        module: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]  # transformers left it unannotated
            config, attn_implementation="sdpa"
        )
    set_control_ids(module, tokenizer)
    return module


def read_module(directory: Path) -> PreTrainedModel:
    """Read the module of a directory, in evaluation mode; its generation_config knows the ends of texts.

    Raises:
        ArtefactError: a file is missing or damaged, or names code.
    """
    config = read_config(directory / CONFIG)
    module = assemble(config, read_weights(directory), str(directory))
    file = directory / GENERATION
    said = read_json(file).get("eos_token_id") if file.is_file() else None
    named = getattr(module.config, "eos_token_id", None) if said is None else said
    module.generation_config = _generation_config(module.config, _ids(named))
    return module


def set_control_ids(module: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """Write the tokenizer's control ids into the configs, so that `generate` stops at the end id.

    Other ids at which the model's own generation_config stops, as those that end an answer, stay in
    it behind the end id, if they are control ids of this tokenizer too.

    Raises:
        UserError: they are not ids of the module.
    """
    rows = embeddings(module).num_embeddings
    control = {"begin": tokenizer.bos_id, "end": tokenizer.end_id, "pad": tokenizer.pad_id}
    for name, number in control.items():
        if number is not None and not 0 <= number < rows:
            raise UserError(
                f"model and tokenizer do not match: the {name} id {number} of the tokenizer is not "
                f"among the model's {rows} ids"
            )
    config = module.config
    config.bos_token_id, config.eos_token_id, config.pad_token_id = control.values()
    others = (
        i
        for i in _ids(getattr(module.generation_config, "eos_token_id", None))
        if i < min(rows, tokenizer.vocab_size) and not tokenizer.decode([i])
    )
    ends = list(dict.fromkeys([tokenizer.end_id, *others]))
    module.generation_config = _generation_config(config, ends)


def _generation_config(config: PreTrainedConfig, ends: Sequence[int]) -> GenerationConfig:
    # Nothing else: how to draw is a matter of samplers, and what a file says of it may be refused at saving.
    return GenerationConfig(  # type: ignore[no-untyped-call]  # transformers left it unannotated
        bos_token_id=getattr(config, "bos_token_id", None),
        eos_token_id=list(ends) if len(ends) > 1 else next(iter(ends), None),
        pad_token_id=getattr(config, "pad_token_id", None),
    )


def _ids(named: object) -> list[int]:
    """Return the ids that a config names by one or by a list."""
    return [i for i in (named if isinstance(named, list) else [named]) if type(i) is int and i >= 0]
