"""A model on disk: weights that `transformers` opens, the tokenizer, and the manifest."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fst_core.artefacts.digests import digest_fields
from fst_core.artefacts.manifest import MANIFEST, read_manifest, write_manifest
from fst_core.artefacts.provenance import resolve
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fst_core.chat import ChatTemplate
    from fst_core.interfaces.model import Model
    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = [
    "LoadedModel",
    "is_foreign",
    "load_model",
    "load_tokenizer",
    "save_model",
    "tokenizer_digest",
]

TOKENIZER = "tokenizer"
"""The folder of an artefact that `Tokenizer.save` wrote."""
CONFIG = "config.json"
"""The file by which a directory is known as a model of `transformers`."""
_PRETRAINED = "transformers/pretrained"
"""The address of the model and of the tokenizer that open what FST did not export."""
_TEMPLATE = "chat_template.jinja"
_BESIDE_WEIGHTS = ("tokenizer.json", "tokenizer_config.json", _TEMPLATE)
"""Files of a tokenizer that `transformers` looks for beside the weights."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and its tokenizer, ready to generate."""

    directory: Path
    manifest: Mapping[str, Any]
    module: torch.nn.Module
    """On the CPU, in evaluation mode."""
    tokenizer: Tokenizer
    model_class: type[Model]
    chat: ChatTemplate
    """How its conversations become ids."""

    @property
    def name(self) -> str:
        """What people call it: the name of its run, else that of its directory or file."""
        path = self.directory.resolve()
        path = path.parent if path.name == "model" else path
        return (
            path.parent.name
            if path.name.isdecimal()
            else path.stem
            if path.is_file()
            else path.name
        )

    @property
    def context_length(self) -> int:
        """The longest sequence of ids that the module takes."""
        return int(self.manifest["counts"]["context_length"])


def save_model(
    directory: Path,
    model: Model,
    module: torch.nn.Module,
    tokenizer_directory: Path,
    *,
    chat_template: Path | None = None,
    **fields: Any,
) -> None:
    """Write a model with its tokenizer and manifest into an empty directory.

    Args:
        directory: where to.
        model: the component of the module.
        module: what was trained.
        tokenizer_directory: where its tokenizer was saved.
        chat_template: the template by which it learned conversations, if it did.
        fields: what else the manifest says.
    """
    from fst_core.chat import DEFAULT

    model.save(module, directory)
    shutil.copytree(tokenizer_directory, directory / TOKENIZER)
    for name in _BESIDE_WEIGHTS:
        if (tokenizer_directory / name).is_file():
            shutil.copyfile(tokenizer_directory / name, directory / name)
    if chat_template is not None:
        shutil.copyfile(chat_template, directory / _TEMPLATE)
        _let_templates_write_control_tokens(directory / "tokenizer_config.json")
    chat = "trained"
    if not (directory / _TEMPLATE).is_file():
        (directory / _TEMPLATE).write_text(DEFAULT, "utf-8", newline="\n")
        chat = "default"
    counts = {
        "context_length": model.context_length,
        "parameters": sum(p.numel() for p in module.parameters()),
    }
    write_manifest(directory, "model", counts=counts, chat=chat, **fields)


def _let_templates_write_control_tokens(config: Path) -> None:
    """Let `transformers` take a control token in a rendered conversation for what it is."""
    if config.is_file():
        fields = json.loads(config.read_bytes())
        fields.pop("split_special_tokens", None)
        text = json.dumps(fields, ensure_ascii=False, indent=1) + "\n"
        config.write_text(text, "utf-8", newline="\n")


def is_foreign(path: Path) -> bool:
    """Say whether a path is a model that FST did not export: a GGUF file, or a directory with a config."""
    if path.is_file():
        return path.suffix.lower() == ".gguf"
    return (path / CONFIG).is_file() and not (path / MANIFEST).is_file()


def load_model(directory: Path) -> LoadedModel:
    """Load a model that FST exported, or a directory or a GGUF file that `pretrained` opens.

    Raises:
        ArtefactError: it is missing or damaged.
        MissingPlugin: it was made with a plugin that is not installed.
    """
    from fst_core.chat import ChatTemplate

    if is_foreign(directory):
        return _load_foreign(directory)
    manifest = read_manifest(directory, kind="model")
    length = manifest.get("counts", {}).get("context_length")
    if type(length) is not int or length < 1:
        raise ArtefactError(f"{directory}: fst.json does not say context_length")
    tokenizer = load_tokenizer(directory, manifest)
    model_class: type[Model] = resolve(
        "model", _component(manifest, "model", directory), str(directory)
    ).implementation()
    module = model_class.load(directory).eval()
    trained = manifest.get("chat") == "trained"
    chat = ChatTemplate.read(directory, trained=trained, tokenizer=tokenizer)
    return LoadedModel(directory, manifest, module, tokenizer, model_class, chat)


def _load_foreign(path: Path) -> LoadedModel:
    """Open a model by the components that fine-tune such a one."""
    from fst_core.chat import ChatTemplate
    from fst_core.plugins import registry
    from fst_core.settings import validate

    parts = [registry().find(kind, _PRETRAINED) for kind in ("model", "tokenizer")]
    opened = []
    for part in parts:
        part.require()
        settings_class = part.settings_class()
        assert settings_class is not None
        opened.append(part.build(validate(settings_class, {"path": str(path)})))
    model, tokenizer = opened
    module = model.build(tokenizer).eval()
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save(Path(saved))
        trained = (Path(saved) / _TEMPLATE).is_file()
        chat = ChatTemplate.read(Path(saved), trained=trained, tokenizer=tokenizer)
    manifest = {"counts": {"context_length": model.context_length}}
    return LoadedModel(path, manifest, module, tokenizer, type(model), chat)


def load_tokenizer(directory: Path, manifest: Mapping[str, Any]) -> Tokenizer:
    """Load the tokenizer of a dataset or a model.

    Raises:
        ArtefactError: it is missing or damaged.
        MissingPlugin: it was made with a plugin that is not installed.
    """
    offer = resolve("tokenizer", _component(manifest, "tokenizer", directory), str(directory))
    tokenizer: Tokenizer = offer.implementation().load(directory / TOKENIZER)
    return tokenizer


def tokenizer_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest of an artefact's tokenizer: a dataset and a model go together if theirs are equal."""
    inside = f"{TOKENIZER}/"
    files = manifest["files"].items()
    return digest_fields({name: file["sha256"] for name, file in files if name.startswith(inside)})


def _component(manifest: Mapping[str, Any], kind: str, directory: Path) -> Mapping[str, Any]:
    components = manifest.get("components")
    said = components.get(kind) if isinstance(components, dict) else None
    if not isinstance(said, dict):
        raise ArtefactError(f"{directory}: fst.json does not say which {kind} made it")
    return said
