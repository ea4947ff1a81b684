"""GGUF: the file format of llama.cpp, whose packed weights become plain numbers here."""

from __future__ import annotations

import functools
import io
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from fst_core.errors import ArtefactError, MissingDependency, one_line
from fst_transformers.config import build_config
from fst_transformers.gguf_reader import ends_of, forget, reading_once
from fst_transformers.quiet import quiet
from fst_transformers.weights import assemble, outline

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["read_gguf_config", "read_gguf_module"]


def read_gguf_config(path: Path) -> PreTrainedConfig:
    """Read the config from the metadata of a GGUF file.

    Raises:
        ArtefactError: the file is damaged, or its architecture is unknown to `transformers`.
        MissingDependency: the package `gguf` is not installed.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from None
    return build_config(_config(path, changed), str(path))


@functools.lru_cache(maxsize=4)
def _config(path: Path, changed: int) -> Mapping[str, Any]:  # noqa: ARG001  # it tells files of one name apart
    fields: dict[str, Any] = _parse(path)["config"]
    if fields.get("model_type") == "gpt2":  # whose lengths get names that GPT2Config does not know
        fields |= {"n_positions": fields.get("n_ctx"), "n_inner": fields.get("feed_forward_length")}
    return fields


def read_gguf_module(path: Path) -> PreTrainedModel:
    """Read the module of a GGUF file: dense float32 weights, in evaluation mode.

    Its generation_config knows every end that the file names.

    Raises:
        ArtefactError: the file is damaged, or its architecture is unknown to `transformers`.
        MissingDependency: the package `gguf` is not installed.
    """
    config = read_gguf_config(path)
    # Weights unpacked into a module of its own, since transformers does not save one that it reads from GGUF.
    found = _parse(path, return_tensors=True, model_to_load=outline(config, str(path)))
    ends = ends_of(path)
    forget()
    module = assemble(config, found["tensors"], str(path))
    module.generation_config.eos_token_id = ends
    return module


def _parse(path: Path, **options: Any) -> dict[str, Any]:
    try:
        import gguf  # noqa: F401  # transformers logs its absence and then raises something else
    except ImportError:
        raise MissingDependency(f"{path} needs gguf. Install it: pip install gguf") from None
    try:
        with (
            quiet(),
            reading_once(),
            redirect_stderr(io.StringIO()),
        ):  # its progress bar knows no setting
            parsed: dict[str, Any] = load_gguf_checkpoint(str(path), **options)  # type: ignore[no-untyped-call]  # transformers left it unannotated
    except Exception as error:  # noqa: BLE001  # the reader fails in many ways on a damaged file
        raise ArtefactError(
            f"{path}: not a GGUF file that can be used: {one_line(error)}"
        ) from None
    return parsed
