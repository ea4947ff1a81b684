"""The sampler `greedy`: always the likeliest id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Sampler

if TYPE_CHECKING:
    import torch

    from fst_core import Rows

__all__ = ["GreedySampler"]


class GreedySampler(Sampler):
    """Takes the likeliest id of each row, the lowest of equal ones."""

    def draw(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:  # noqa: ARG002  # nothing is left to chance
        """Return the position of each row's largest logit: (B, V) float32 -> (B,) int64."""
        return logits.argmax(dim=-1)
