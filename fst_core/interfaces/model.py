"""Models build, save and load a torch module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = ["Model"]


class Model(ABC):
    """Builds a language model and writes it to a directory.

    The module that `build` and `load` return is called as those of `transformers` are:
    `forward(input_ids=(B, T) int64, attention_mask=None, position_ids=None, past_key_values=None,
    use_cache=False)` returns an object whose `logits` are (B, T, vocab_size) or wider: ids beyond the
    tokenizer's are never wanted. `past_key_values` may be called `cache`, as in later releases of
    `transformers`: whoever passes one looks at the signature. It has `update(keys, values,
    layer_idx, ...)`, which returns all keys and values so far, and `get_seq_length()`; with it come
    `position_ids` and an additive `attention_mask` of (B, 1, T, S).

    An author writes a component (see `Tokenizer` for the two modules) whose class is, in short:

        class TinyModel(Model):
            def __init__(self, settings: TinySettings) -> None:
                self.settings = settings

            @property
            def context_length(self):
                return self.settings.n_positions

            def build(self, tokenizer):
                return TinyModule(TinyConfig(**self.settings.model_dump(), vocab_size=tokenizer.vocab_size))

            def save(self, module, directory):
                (directory / "config.json").write_text(json.dumps(asdict(module.config)), "utf-8")
                safetensors.torch.save_file(module.state_dict(), directory / "model.safetensors")

            @classmethod
            def load(cls, directory):
                config = TinyConfig(**json.loads((directory / "config.json").read_text("utf-8")))
                module = TinyModule(config)
                module.load_state_dict(safetensors.torch.load_file(directory / "model.safetensors"))
                return module
    """

    format: ClassVar[int] = 1
    """Raised when the same settings and seed begin to give another module."""
    supports_cache: ClassVar[bool] = True
    """Whether the module takes `past_key_values`; without, an engine computes the whole text anew."""

    @property
    @abstractmethod
    def context_length(self) -> int:
        """The longest sequence of ids that the module takes."""

    def fingerprint(self) -> str:
        """Return a digest of the files that the settings name; the default has none."""
        return ""

    @abstractmethod
    def build(self, tokenizer: Tokenizer) -> torch.nn.Module:
        """Return a new module for the tokenizer's ids; the caller has seeded torch.

        A parameter that is not to be trained requires no gradient.

        Raises:
            UserError: the settings and the tokenizer do not go together.
        """

    @abstractmethod
    def save(self, module: torch.nn.Module, directory: Path) -> None:
        """Write the module into an existing directory, as safetensors and JSON; it is not changed."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> torch.nn.Module:
        """Read a module that `save` wrote, on the CPU, in the dtype it has on disk; needs the directory alone.

        Raises:
            ArtefactError: a file is missing or damaged.
        """

    @classmethod
    def optimise(cls, module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
        """Return a module that computes the same function faster, for inference in `dtype`."""
        return module.to(dtype)
