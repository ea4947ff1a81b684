"""Configs: the description of an architecture, from JSON that anybody may have written."""

from __future__ import annotations

import json
from dataclasses import fields as fields_of
from typing import TYPE_CHECKING, Any, Final

from transformers import CONFIG_MAPPING

from fst_core.errors import ArtefactError, one_line
from fst_transformers.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedConfig

__all__ = ["CONFIG", "GENERATION", "build_config", "context_length", "read_config"]

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
"""What says how texts are generated, of which FST reads how they end."""
_LARGEST: Final = 16 * 2**20
"""Bytes; configs have a few thousand."""
_MOST_LAYERS: Final = 10_000
"""A limit on what a config alone can make a process build."""

_REFUSED: Final = frozenset(
    {
        "attn_implementation",
        "auto_map",
        "compression_config",
        "configuration_files",
        "custom_pipelines",
        "distributed_config",
        "experts_implementation",
        "fusion_config",
        "kernel_config",
        "quantization_config",
        "transformers_weights",
        "trust_remote_code",
        "use_kernels",
    }
)
"""Keys by which a config names code, files elsewhere, or weights that are not plain numbers."""
_WITHOUT_MEANING: Final = frozenset(
    {
        "_attn_implementation_autoset",
        "_commit_hash",
        "_model_name_or_path",
        "_name_or_path",
        "dtype",  # the weights have it
        "name_or_path",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "torch_dtype",
        "torchscript",
        "use_return_dict",
    }
)
"""Keys that many published configs have, and that must not decide anything here."""
_PRIVATE: Final = frozenset({"_sliding_window_pattern"})
"""Keys with an underscore that belong to an architecture."""
_LEGACY: Final = frozenset({"model_type", "rope_scaling"})
"""Keys that are read, although a config's class has its own attribute of the name."""


def read_config(path: Path) -> PreTrainedConfig:
    """Read a config.json.

    Raises:
        ArtefactError: it is missing or damaged, or names what must not be loaded.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ArtefactError(f"{path}: too large to be a config")
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ArtefactError(f"{path}: not a table of keys")
    return build_config(fields, str(path))


def build_config(fields: Mapping[str, Any], place: str) -> PreTrainedConfig:
    """Build the config that the fields describe; `place` begins every message.

    Raises:
        ArtefactError: they describe no architecture of `transformers`, or name what must not be loaded.
    """
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ArtefactError(
            f"{place}: model_type {kind!r} is unknown to the installed transformers"
        )
    cls = CONFIG_MAPPING[kind]
    plain = _plain(fields, place)
    own = {*(field.name for field in fields_of(cls)), *cls.attribute_map, *_LEGACY}
    for key in plain:
        if hasattr(cls, key) and key not in own:
            raise _refusal(key, place)
    try:
        with quiet():
            config: PreTrainedConfig = cls(**plain)
    except Exception as error:  # noqa: BLE001  # each architecture checks its values in its own way
        raise ArtefactError(f"{place}: describes no '{kind}': {one_line(error)}") from None
    return config


def context_length(config: PreTrainedConfig, place: str) -> int:
    """Return the longest sequence of ids that a config's architecture takes.

    Raises:
        ArtefactError: the config does not say so.
    """
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length < 1:
        raise ArtefactError(
            f"{place}: '{config.model_type}' does not say how many positions it has "
            "(max_position_embeddings)"
        )
    return length


def _plain(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the fields that describe an architecture, nested ones too."""
    plain: dict[str, Any] = {}
    for key, value in fields.items():
        if key in _WITHOUT_MEANING:
            continue
        if key in _REFUSED or (key.startswith("_") and key not in _PRIVATE):
            raise _refusal(key, place)
        if key.endswith(("layer", "layers")) and isinstance(value, int) and value > _MOST_LAYERS:
            raise ArtefactError(f"{place}: {key} = {value}: more than {_MOST_LAYERS}")
        plain[key] = _plain(value, place) if isinstance(value, dict) else value
    return plain


def _refusal(key: str, place: str) -> ArtefactError:
    return ArtefactError(
        f"{place}: the key {key!r} is refused: a config describes an architecture, "
        "and names neither code nor other files nor packed weights"
    )
