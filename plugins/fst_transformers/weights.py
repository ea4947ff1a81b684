"""Weights: the tensors of a directory, and the module that a config and tensors make."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from fst_core.errors import ArtefactError, one_line
from fst_transformers.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["INDEX", "WEIGHTS", "assemble", "embeddings", "outline", "read_weights", "weight_files"]

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
"""Names the file of each tensor, where a model has several files."""


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a directory, each of them in it.

    Raises:
        ArtefactError: there are none, or the index is damaged or leads elsewhere.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if not index.is_file():
        pickled = next(iter(sorted(directory.glob("*.bin"))), None)
        found = f", only {pickled.name}, which is not opened: it can hold code" if pickled else ""
        raise ArtefactError(
            f"{directory}: has no {WEIGHTS}{found}. Save the model with safetensors."
        )
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ArtefactError(f"{index}: damaged: names no file of weights") from None
    for name in names:
        if not isinstance(name, str) or not name.endswith(".safetensors") or _elsewhere(name):
            raise ArtefactError(f"{index}: names a file outside of its directory: {name!r:.80}")
        if not (directory / name).is_file():
            raise ArtefactError(f"{directory / name}: missing, though {INDEX} names it")
    return [directory / name for name in sorted(names)]


def read_weights(directory: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a directory by name, on the CPU, in the dtype they have on disk.

    Raises:
        ArtefactError: a file is missing or damaged.
    """
    weights: dict[str, torch.Tensor] = {}
    for path in weight_files(directory):
        try:
            # Not the mapped file: one that is overwritten must not change what is served.
            weights |= {name: tensor.clone() for name, tensor in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise ArtefactError(f"{path}: damaged: {one_line(error)}") from None
    return weights


def outline(config: PreTrainedConfig, place: str) -> PreTrainedModel:
    """Return the module that a config describes, without numbers in it (on the device `meta`).

    Raises:
        ArtefactError: the config describes no language model, or one that cannot be.
    """
    architecture = _architecture(config, place)
    try:
        with quiet(), torch.device("meta"):
            module: PreTrainedModel = architecture(config)
    except Exception as error:  # noqa: BLE001  # each architecture fails in its own way
        raise ArtefactError(f"{place}: describes no model: {one_line(error)}") from None
    return module


def assemble(
    config: PreTrainedConfig, weights: Mapping[str, torch.Tensor], place: str
) -> PreTrainedModel:
    """Return the module of a config with these weights, in their dtype, on the CPU, in evaluation mode.

    Raises:
        ArtefactError: weights are missing, left over, of another shape, or not finite.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ArtefactError(f"{place}: '{name}' holds NaN or infinity")
    described = sum(parameter.numel() for parameter in outline(config, place).parameters())
    held = sum(tensor.numel() for tensor in weights.values())
    if (
        described > 2 * held
    ):  # so that a false config cannot fill the memory; ties count at most twice
        raise ArtefactError(
            f"{place}: weights are missing: the config describes {described} numbers, the files hold {held}"
        )
    # Given tensors and no path, transformers opens no file: neither code, nor adapters, nor pickle.
    try:
        with quiet():
            module, told = _architecture(config, place).from_pretrained(
                None,
                config=config,
                # A GGUF's matrices come transposed, and would round otherwise once they are saved.
                state_dict={name: tensor.contiguous() for name, tensor in weights.items()},
                dtype=_dtype(weights),
                ignore_mismatched_sizes=True,  # reported below, in one line
                output_loading_info=True,
            )
    except Exception as error:  # noqa: BLE001  # each architecture fails in its own way
        raise ArtefactError(
            f"{place}: the weights do not fit the config: {one_line(error)}"
        ) from None
    _check(told, place)
    module.config.name_or_path = ""
    fitted: PreTrainedModel = module
    # Training would never move the row of a padding index, which may be that of the end id as well.
    embeddings(fitted).padding_idx = None
    return fitted


def embeddings(module: PreTrainedModel) -> torch.nn.Embedding:
    """Return the embeddings of the ids, a row each."""
    found = module.get_input_embeddings()
    assert isinstance(found, torch.nn.Embedding)
    return found


def _architecture(config: PreTrainedConfig, place: str) -> Any:
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ArtefactError(f"{place}: '{config.model_type}' is no model that writes text")
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def _dtype(weights: Mapping[str, torch.Tensor]) -> torch.dtype:
    floating = (tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    return next(floating, torch.float32)


def _check(told: Mapping[str, Any], place: str) -> None:
    problems: dict[str, Collection[str]] = {
        "is missing": told["missing_keys"],
        "is left over: the config describes no such weight": told["unexpected_keys"],
        "has another shape than the config says": [key[0] for key in told["mismatched_keys"]],
        "cannot be used": told["error_msgs"],
    }
    for problem, names in problems.items():
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ArtefactError(f"{place}: weight '{min(names)}' {problem}{more}")


def _elsewhere(name: str) -> bool:
    return "/" in name or "\\" in name or ":" in name or "\0" in name
