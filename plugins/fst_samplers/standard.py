"""The sampler `standard`: the parameters that people know, each row with its own values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from fst_core import Sampler
from fst_samplers.penalties import penalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fst_core import Rows
    from fst_samplers.settings import StandardSettings

__all__ = ["StandardSampler"]

GREEDY_BELOW: Final = 1e-5
"""Temperatures that are taken as 0: division by them could overflow."""


class StandardSampler(Sampler):
    """Penalties, temperature, top-k, top-p and min-p, in this order, as `transformers` has them.

    A parameter that is off in all rows costs nothing. Of equal logits, top-k and top-p keep all
    or none, so that a result never depends on the order of a sort; temperature 0 takes the first.
    """

    def __init__(self, settings: StandardSettings) -> None:
        self.settings = settings

    def adjust(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return logits in which what may not be drawn is -inf: (B, V) float32; works in place."""
        every: Sequence[StandardSettings] = rows.parameters
        logits = penalise(logits, rows)
        if any(p.temperature != 1 for p in every):
            logits = _temperature(logits, [p.temperature for p in every])
        if any(p.top_k for p in every):
            logits = _top_k(logits, [p.top_k for p in every])
        if any(p.top_p < 1 for p in every):
            logits = _top_p(logits, [p.top_p for p in every])
        if any(p.min_p for p in every):
            logits = _min_p(logits, [p.min_p for p in every])
        return logits


def _temperature(logits: torch.Tensor, temperature: list[float]) -> torch.Tensor:
    greedy = [row for row, t in enumerate(temperature) if t < GREEDY_BELOW]
    logits /= logits.new_tensor([1 if t < GREEDY_BELOW else t for t in temperature])[:, None]
    if greedy:
        best = logits[greedy].argmax(dim=-1)
        value = logits[greedy, best]
        logits[greedy] = -math.inf
        logits[greedy, best] = value
    return logits


def _top_k(logits: torch.Tensor, top_k: list[int]) -> torch.Tensor:
    vocabulary = logits.shape[-1]
    values = logits.topk(min(max(top_k), vocabulary)).values  # (B, largest k), falling
    last = torch.tensor([[min(k or 1, vocabulary) - 1] for k in top_k], device=logits.device)
    least = values.gather(1, last)
    least[[row for row, k in enumerate(top_k) if not k]] = -math.inf
    return _from(logits, least)


def _top_p(logits: torch.Tensor, top_p: list[float]) -> torch.Tensor:
    """Nucleus sampling (Holtzman et al. 2020): the least likely ids up to 1 - p are left out."""
    rows = [row for row, p in enumerate(top_p) if p < 1]
    spare = logits.new_tensor([1 - top_p[row] for row in rows])[:, None]
    rising = _sorted(logits[rows])
    mass = rising.softmax(dim=-1).cumsum(dim=-1)
    left_out = (mass <= spare).sum(dim=-1, keepdim=True)
    least = logits.new_full((len(logits), 1), -math.inf)
    least[rows] = rising.gather(1, left_out.clamp_(max=logits.shape[-1] - 1))
    return _from(logits, least)


def _sorted(logits: torch.Tensor) -> torch.Tensor:
    """Return each row's values, rising; on a CPU by numpy, many times as fast as torch there."""
    if logits.device.type == "cpu":
        return torch.from_numpy(np.sort(logits.numpy(), axis=-1))
    return logits.sort(dim=-1).values


def _min_p(logits: torch.Tensor, min_p: list[float]) -> torch.Tensor:
    """Min-p (Nguyen et al. 2024): a share of a probability is a distance of logits."""
    return _from(
        logits, logits.amax(dim=-1, keepdim=True) + logits.new_tensor(min_p)[:, None].log()
    )


def _from(logits: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Keep what is at least as large as its row's value: (B, V), (B, 1) -> (B, V)."""
    return logits.masked_fill_(logits < least, -math.inf)
