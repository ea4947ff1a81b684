"""Penalties: logits lowered for ids that stand in the text so far."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fst_core import Rows

__all__ = ["penalise"]


def penalise(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Apply each row's penalties in place; rows without any are not touched.

    Repetition is that of CTRL (Keskar et al. 2019), over the prompt and what was generated.
    Frequency and presence are those of OpenAI's API, over what was generated alone:
    logit - count * frequency_penalty - (count > 0) * presence_penalty.
    """
    every = rows.parameters
    repeating = [row for row, p in enumerate(every) if p.repetition_penalty != 1]
    if repeating:
        row, ids, _ = _found({row: rows.history[row] for row in repeating}, logits)
        penalty = logits.new_tensor([p.repetition_penalty for p in every])[row]
        value = logits[row, ids]
        logits[row, ids] = torch.where(value < 0, value * penalty, value / penalty)

    counting = [row for row, p in enumerate(every) if p.presence_penalty or p.frequency_penalty]
    if counting:
        row, ids, counts = _found({row: _generated(rows, row) for row in counting}, logits)
        presence = logits.new_tensor([p.presence_penalty for p in every])[row]
        frequency = logits.new_tensor([p.frequency_penalty for p in every])[row]
        logits[row, ids] -= counts * frequency + presence
    return logits


def _generated(rows: Rows, row: int) -> Sequence[int]:
    return (
        rows.history[row][rows.prompt_lengths[row] :] if rows.prompt_lengths else rows.history[row]
    )


def _found(
    histories: Mapping[int, Sequence[int]], logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return rows, ids and counts of the distinct ids of each history: three of (found,) int64."""
    found = [
        (row, i, count)
        for row, history in histories.items()
        for i, count in Counter(history).items()
    ]
    row, ids, counts = torch.tensor(found, dtype=torch.int64, device=logits.device).view(-1, 3).T
    return row, ids, counts
