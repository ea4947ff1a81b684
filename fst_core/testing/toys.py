"""Toys for the contracts that work with a module: whole, tiny, and the same each time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import torch  # noqa: TID253  # only the contracts that work with a module import this
from torch.nn import functional as F  # noqa: N812, TID253  # its customary name; as above

from fst_core import Model, Sampler, Settings, Tokenizer
from fst_core.artefacts import LoadedModel, read_manifest, write_manifest
from fst_core.artefacts.model import save_model
from fst_core.chat import ChatTemplate
from fst_core.dataset import Dataset, SplitWriter, cut, token_dtype
from fst_core.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fst_core import Rows

__all__ = [
    "ToyModel",
    "ToyModule",
    "ToySampler",
    "ToySamplerSettings",
    "ToyTokenizer",
    "toy_dataset",
    "toy_model",
    "toy_module",
]

_LINES = (
    "The sun rises in the east and sets in the west.",
    "The moon rises in the evening, and the sea rises with it.",
    "The sea sets out in the morning and comes back in the evening.",
)
"""Predictable, so that a loss can fall."""
_LETTERS = b"abcdefghijklmnopqrstuvwxyz \xc3"
"""What `toy_module` writes; the last is half of a letter, and `_OTHER_HALF` follows it."""
_OTHER_HALF = 0xA9


class ToyTokenizer(Tokenizer):
    """One id a byte of UTF-8, so that a character may be cut in two."""

    vocab_size, bos_id, end_id, pad_id = 259, 256, 257, 258

    def encode(self, text: str) -> list[int]:
        """Encode a text, without control ids."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def save(self, directory: Path) -> None:
        """Write a file that says nothing."""
        (directory / "toy.json").write_text("{}\n", "utf-8", newline="\n")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the tokenizer if it was saved there."""
        if _read_json(directory / "toy.json") != {}:
            raise ArtefactError(f"{directory / 'toy.json'}: not a toy")
        return cls()


class ToyModule(torch.nn.Module):
    """A causal transformer of two layers and two heads, called as `Model` says and no other way."""

    def __init__(
        self, vocab_size: int, context_length: int, *, width: int = 16, layers: int = 2
    ) -> None:
        super().__init__()
        self.tokens = torch.nn.Embedding(vocab_size, width)
        self.positions = torch.nn.Embedding(context_length, width)
        self.inputs = torch.nn.ModuleList(torch.nn.Linear(width, 3 * width) for _ in range(layers))
        self.outputs = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))
        self.head = torch.nn.Linear(width, vocab_size)
        self.ends: tuple[int, int] | None = None
        """The end id, and the position behind which it is certain; None: nowhere."""
        self.pair: tuple[int, int] | None = None
        """An id, and the one that is certain behind it; None: there is none."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,  # noqa: ARG002  # an engine may say it; the cache itself says it here
    ) -> ToyOutput:
        """Return the logits, (B, T, V); masks are (B, S) of 0 and 1, or (B, 1, T, S), boolean or added."""
        batch, length = input_ids.shape
        past = 0 if past_key_values is None else past_key_values.get_seq_length()
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=input_ids.device)[None]
        x = self.tokens(input_ids) + self.positions(position_ids)
        mask = _mask(attention_mask, length, past + length, x.device)
        for index, (inputs, outputs) in enumerate(zip(self.inputs, self.outputs, strict=True)):
            heads = inputs(F.layer_norm(x, x.shape[-1:])).view(batch, length, 2, -1)
            queries, keys, values = heads.transpose(1, 2).chunk(3, dim=-1)  # (B, 2, T, D) each
            if past_key_values is not None:
                keys, values = past_key_values.update(keys, values, index)
            seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
            x = x + outputs(F.gelu(seen.transpose(1, 2).reshape(batch, length, -1)))
        logits = self.head(F.layer_norm(x, x.shape[-1:]))
        if self.pair is not None:
            first, second = self.pair
            logits[..., second] += 1e4 * (input_ids == first)
        if self.ends is not None:
            end_id, position = self.ends
            logits[..., end_id] += 1e5 * (position_ids >= position)
        return ToyOutput(logits)


class ToyOutput:
    """What a module returns."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


def _mask(
    given: torch.Tensor | None, length: int, total: int, device: torch.device
) -> torch.Tensor:
    if given is not None and given.ndim == 4:
        return given
    causal = torch.ones(length, total, dtype=torch.bool, device=device).tril(total - length)
    return causal if given is None else causal & given[:, None, None, :].bool()


class ToyModel(Model):
    """Builds a `ToyModule`, and saves its weights as JSON."""

    def __init__(self, context_length: int = 64) -> None:
        self._context_length = context_length

    @property
    def context_length(self) -> int:
        """The longest sequence of ids that the module takes."""
        return self._context_length

    def build(self, tokenizer: Tokenizer) -> ToyModule:
        """Return a new module."""
        return ToyModule(tokenizer.vocab_size, self._context_length)

    def save(self, module: torch.nn.Module, directory: Path) -> None:
        """Write the weights: float32 survives JSON."""
        weights = {name: tensor.tolist() for name, tensor in module.state_dict().items()}
        (directory / "model.json").write_text(json.dumps(weights), "utf-8")

    @classmethod
    def load(cls, directory: Path) -> ToyModule:
        """Read a module that `save` wrote."""
        weights = _read_json(directory / "model.json")
        module = ToyModule(len(weights["tokens.weight"]), len(weights["positions.weight"]))
        module.load_state_dict({name: torch.tensor(rows) for name, rows in weights.items()})
        return module


class ToySamplerSettings(Settings):
    """Settings of `ToySampler`."""

    greedy: bool = False
    """Whether the likeliest id is taken."""


class ToySampler(Sampler):
    """Draws by the logits as they are, or takes the likeliest id where a request says so."""

    def __init__(self, settings: ToySamplerSettings) -> None:
        self.settings = settings

    def draw(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Draw an id a row."""
        greedy = torch.tensor([parameters.greedy for parameters in rows.parameters])
        return torch.where(greedy.to(logits.device), logits.argmax(-1), super().draw(logits, rows))


def toy_module(context_length: int = 64, *, end_at: int | None = None) -> ToyModule:
    """Return a module for `ToyTokenizer` whose every id depends much on all that precede it.

    It writes letters, one of them of two ids, and no control id but the end's: behind position
    `end_at`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(228)
        module = ToyModule(ToyTokenizer.vocab_size, context_length)
    with torch.no_grad():
        module.head.weight *= 4
        module.head.bias.fill_(-1e3)
        module.head.bias[list(_LETTERS)] = 0.0
        module.head.bias[_LETTERS[-1]] = 1.5
    module.pair = (_LETTERS[-1], _OTHER_HALF)
    module.ends = None if end_at is None else (ToyTokenizer.end_id, end_at)
    return module.eval()


def toy_dataset(directory: Path, tokenizer: Tokenizer, *, max_sample_length: int = 32) -> Dataset:
    """Write a dataset of a few predictable lines, and open it."""
    counts = {"max_sample_length": max_sample_length}
    for split, repeats in (("train", 16), ("valid", 2)):
        texts = _LINES * repeats
        ids, offsets = tokenizer.encode_documents(texts)
        starts, ends = cut(offsets, max_sample_length, 1)
        with SplitWriter(directory / split, token_dtype(tokenizer.vocab_size)) as writer:
            writer.write(ids, starts, ends)
        counts[f"number_of_{split}_tokens"] = writer.tokens
        counts[f"number_of_{split}_samples"] = writer.samples
        counts[f"number_of_{split}_bytes"] = sum(len(text.encode()) for text in texts)
    (directory / "tokenizer").mkdir()
    tokenizer.save(directory / "tokenizer")
    write_manifest(directory, "dataset", counts=counts, fingerprint="toy", components={})
    return Dataset.open(directory)


def toy_model(directory: Path, tokenizer: Tokenizer) -> LoadedModel:
    """Save a model in an empty directory, and return it as `load_model` would."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(228)
        model = ToyModel()
        module = model.build(tokenizer)
    with_tokenizer = directory.with_name(f"{directory.name}-tokenizer")
    with_tokenizer.mkdir(parents=True)
    tokenizer.save(with_tokenizer)
    directory.mkdir()
    save_model(directory, model, module, with_tokenizer, components={})
    manifest = read_manifest(directory, kind="model")
    return LoadedModel(directory, manifest, module.eval(), tokenizer, ToyModel, ChatTemplate())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: not a saved toy: {error}") from None
