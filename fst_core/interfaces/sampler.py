"""Samplers choose the next id from logits."""

from __future__ import annotations

import math
from abc import ABC
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from fst_core.interfaces.tokenizer import Tokenizer

__all__ = ["Rows", "Sampler"]

_FEW: Final = 256
"""With fewer ids left to draw, a draw looks at them alone."""


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
    tokenizer: Tokenizer | None = None
    """The model's, for parameters that are words; None where there is none."""
    keys: Sequence[int] = ()
    """(B,) a number for each request, the same at every step and no other's of this engine; may be empty."""


class Sampler(ABC):  # noqa: B024  # every method has a default, and a sampler overrides one of them
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

    def prepare(self, parameters: Any, tokenizer: Tokenizer) -> None:  # noqa: B027  # most have nothing to prepare
        """Do once what a request's parameters need and what takes longer than a step may, such as to compile.

        An engine calls it for the pipeline's parameters when it is made and, in a thread and within a
        time limit, for those of a request that overrides some; several threads may call it at once.
        What is prepared is the sampler's own to keep, and `adjust` may not rely on it.

        Args:
            parameters: the sampler's own Settings, with the fields that the request overrides.
            tokenizer: the model's.

        Raises:
            UserError: a value cannot be used; the message begins with the field's name.
        """

    def adjust(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:  # noqa: ARG002  # for those that override it
        """Return the logits that the next sampler sees: (B, V) float32; may work in place.

        It may be asked for the same step again: an engine draws row by row when one of them failed.
        """
        return logits

    def draw(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Draw an id a row, (B,) int64, by the inverse of the cumulative distribution at `rows.uniform`."""
        import torch

        # In float64, and of what is left to draw alone: what weighs nothing changes no sum.
        candidates = _candidates(logits)
        left = logits if candidates is None else logits.gather(1, candidates)
        weights = (left.double() - left.amax(dim=-1, keepdim=True)).exp_()
        cumulative = weights.cumsum(dim=-1)  # (B, at most V)
        target = rows.uniform.to(cumulative.device)[:, None] * cumulative[:, -1:]
        found = torch.searchsorted(cumulative, target, right=True)  # the first that exceeds it
        found.clamp_(max=cumulative.shape[-1] - 1)
        return (found if candidates is None else candidates.gather(1, found)).squeeze(-1)


def _candidates(logits: torch.Tensor) -> torch.Tensor | None:
    """Return the ids whose logit is not -inf, (B, most of a row), rising; None if they are many."""
    import torch

    likeliest = torch.topk(logits, min(_FEW, logits.shape[-1]))  # (B, _FEW), falling
    if bool((likeliest.values[:, -1] > -math.inf).any()):
        return None
    return likeliest.indices.sort(dim=-1).values
