"""Samplers choose the next id from logits."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__all__ = ["Rows", "Sampler"]


@dataclass(frozen=True, slots=True)
class Rows:
    """What a sampler may know of the requests of a batch, a row each."""

    parameters: Sequence[Any]
    """(B,) the sampler's own Settings, with the fields that each request overrides; None if it has none."""
    history: Sequence[Sequence[int]]
    """(B,) the ids so far, prompt included."""
    uniform: torch.Tensor
    """(B,) float64 in [0, 1): a pure function of a request's seed and its token's index."""
    prompt_lengths: Sequence[int] = ()
    """(B,) how many ids of each history are the prompt's; empty: none are."""


class Sampler(ABC):  # noqa: B024  # both methods have a default, and a sampler overrides one of them
    """Adjusts logits, or draws ids from them; rows never influence each other.

    The engine runs `adjust` of each sampler of a pipeline in order, and `draw` of the last. A
    request may override exactly the fields of a sampler's Settings. An author writes a component
    (see `Tokenizer` for the two modules) whose class is, in short:

        class BanSampler(Sampler):
            def __init__(self, settings: BanSettings) -> None:
                pass

            def adjust(self, logits, rows):
                for row, parameters in enumerate(rows.parameters):
                    logits[row, parameters.banned] = -math.inf
                return logits
    """

    format: ClassVar[int] = 1
    """Raised when the same settings and seed begin to give other ids."""

    def adjust(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:  # noqa: ARG002  # for those that override it
        """Return the logits that the next sampler sees: (B, V) float32; may work in place."""
        return logits

    def draw(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Draw an id a row, (B,) int64, by the inverse of the cumulative distribution at `rows.uniform`."""
        import torch

        probabilities = torch.softmax(logits.double(), dim=-1)
        cumulative = probabilities.cumsum(dim=-1)  # (B, V)
        target = rows.uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
        ids = torch.searchsorted(cumulative, target, right=True)  # first id whose sum exceeds it
        return ids.clamp_(max=logits.shape[-1] - 1).squeeze(-1)
