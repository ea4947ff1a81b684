"""The sampler `standard`: the parameters that people know, each row with its own values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from fst_core import Sampler
from fst_core.errors import UserError
from fst_samplers.penalties import penalise
from fst_samplers.words import ignore_words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fst_core import Rows
    from fst_samplers.settings import StandardSettings

__all__ = ["StandardSampler"]

GREEDY_BELOW: Final = 1e-5
"""Temperatures that are taken as 0: division by them could overflow."""
NUCLEUS: Final = 1024
"""Among so many of the likeliest ids top-p is looked for first: to sort them all takes much longer."""


class StandardSampler(Sampler):
    """Draws by the parameters that people know, as `transformers` has them.

    In this order: penalties, logit bias, ignored words, temperature, top-k, top-p, min-p,
    typical-p. A parameter that is off in all rows costs nothing. Of equal logits, top-k and top-p
    keep all or none, so that a result never depends on the order of a sort; temperature 0 takes the
    first.
    """

    def __init__(self, settings: StandardSettings) -> None:
        self.settings = settings

    def adjust(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Return logits in which what may not be drawn is -inf: (B, V) float32; works in place."""
        every: Sequence[StandardSettings] = rows.parameters
        logits = penalise(logits, rows)
        for row, own in enumerate(every):
            if own.logit_bias:
                _bias(logits[row], own.logit_bias)
        if any(p.ignored_words for p in every):
            logits = ignore_words(logits, rows)
        if any(p.temperature != 1 for p in every):
            logits = _temperature(logits, [p.temperature for p in every])
        if any(p.top_k for p in every):
            logits = _top_k(logits, [p.top_k for p in every])
        if any(p.top_p < 1 for p in every):
            logits = _top_p(logits, [p.top_p for p in every])
        if any(p.min_p for p in every):
            logits = _min_p(logits, [p.min_p for p in every])
        if any(p.typical_p < 1 for p in every):
            logits = _typical_p(logits, [p.typical_p for p in every])
        return logits


def _bias(logits: torch.Tensor, bias: Mapping[int, float]) -> None:
    """Add to (V,) logits, in place."""
    vocabulary = len(logits)
    if unknown := [i for i in bias if not 0 <= i < vocabulary]:
        raise UserError(f"logit_bias: the id {unknown[0]} is not in the vocabulary of {vocabulary}")
    logits[list(bias)] += logits.new_tensor(list(bias.values()))


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
    share = logits.new_tensor([top_p[row] for row in rows])[:, None]
    chosen = logits if len(rows) == len(logits) else logits[rows]
    falling = chosen.topk(min(NUCLEUS, chosen.shape[-1])).values  # (rows, NUCLEUS)
    mass = (falling - chosen.logsumexp(dim=-1, keepdim=True)).exp().cumsum(dim=-1)
    kept = (mass < share).sum(dim=-1, keepdim=True)  # but one, which passes the share
    least = logits.new_full((len(logits), 1), -math.inf)
    least[rows] = falling.gather(1, kept.clamp(max=falling.shape[-1] - 1))
    beyond = (kept.squeeze(1) == falling.shape[-1]).nonzero().squeeze(1).tolist()
    if beyond and falling.shape[-1] < logits.shape[-1]:
        wide = [rows[at] for at in beyond]
        least[wide] = _top_p_of_all(logits[wide], share[beyond])
    return _from(logits, least)


def _top_p_of_all(logits: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Return the least value of each row's nucleus, (B, 1), where it is a large one."""
    rising = _sorted(logits)
    mass = rising.softmax(dim=-1).cumsum(dim=-1)
    left_out = (mass <= 1 - share).sum(dim=-1, keepdim=True)
    return rising.gather(1, left_out.clamp_(max=logits.shape[-1] - 1))


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


def _typical_p(logits: torch.Tensor, typical_p: list[float]) -> torch.Tensor:
    """Locally typical sampling (Meister et al. 2023): the ids whose surprise is nearest to the entropy."""
    rows = [row for row, p in enumerate(typical_p) if p < 1]
    share = logits.new_tensor([typical_p[row] for row in rows])[:, None]
    chosen = logits[rows]
    logprobs = chosen.log_softmax(dim=-1)
    probabilities = logprobs.exp()
    entropy = -(logprobs * probabilities).nansum(dim=-1, keepdim=True)  # 0 * -inf adds nothing
    distance, order = (logprobs + entropy).abs().sort(dim=-1)
    mass = probabilities.gather(1, order).cumsum(dim=-1)
    last = (mass < share).sum(dim=-1, keepdim=True).clamp_(max=logits.shape[-1] - 1)
    far = (logprobs + entropy).abs() > distance.gather(1, last)
    logits[rows] = chosen.masked_fill(far, -math.inf)
    return logits


def _from(logits: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Keep what is at least as large as its row's value: (B, V), (B, 1) -> (B, V)."""
    return logits.masked_fill_(logits < least, -math.inf)
