"""Sampling: the pipeline's samplers over the rows of a batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fst_core import Rows, Sampler
from fst_core.errors import FstError
from fst_core.generation import Logprob, uniform

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fst_core.interfaces.engine import Samplers
    from fst_engine.row import Row

    Drawn = tuple[int, Logprob | None]
    """An id, and its log probability where the row asks for it."""

__all__ = ["Sampling", "failure"]


class Sampling:
    """Draws an id for each row: `adjust` of every sampler in order, `draw` of the last.

    Without samplers, an id is drawn as likely as the model says.
    """

    def __init__(self, samplers: Samplers, never: Collection[int] = ()) -> None:
        self._samplers: list[Sampler] = [sampler for sampler, _ in samplers] or [Sampler()]
        self._never = sorted(never)

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Drawn | FstError]:
        """Draw from (B, V) float32 logits; a row that cannot be drawn gets its error, alone."""
        drawn: list[Drawn | FstError] = [
            FstError("the model computed logits that are not finite numbers") for _ in rows
        ]
        sound = torch.isfinite(logits.amax(dim=-1)).tolist()
        kept = [number for number, good in enumerate(sound) if good]
        if len(kept) < len(rows):
            logits, rows = logits[kept], [rows[number] for number in kept]
        for number, each in zip(kept, self._draw_apart(logits, rows), strict=True):
            drawn[number] = each
        return drawn

    def _draw_apart(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Drawn | FstError]:
        """Draw all rows at once; if that fails, one by one, to tell the faulty ones apart."""
        if not rows:
            return []
        try:
            ids = self._draw(logits, rows)
        except FstError as error:
            if len(rows) == 1:
                return [error]
            alone = (self._draw_apart(logits[n : n + 1], [row]) for n, row in enumerate(rows))
            return [drawn for (drawn,) in alone]
        return [
            (i, None if row.logprobs is None else _logprob(logits[number], i, row.logprobs))
            for number, (i, row) in enumerate(zip(ids, rows, strict=True))
        ]

    def _draw(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        adjusted = logits.clone()  # samplers may work in place
        adjusted[:, self._never] = -math.inf
        numbers = [uniform(row.seed, len(row.ids) - row.prompt_length) for row in rows]
        chance = torch.tensor(numbers, dtype=torch.float64)
        sampler = self._samplers[0]
        try:
            for number, sampler in enumerate(self._samplers):
                view = _view(rows, number, chance)
                adjusted = sampler.adjust(adjusted, view)
            _check_adjusted(adjusted, logits.shape)
            ids: list[int] = sampler.draw(adjusted, view).tolist()
            self._check_drawn(ids, logits.shape)
        except Exception as error:  # a stranger's sampler may raise anything
            raise failure(f"the sampler {type(sampler).__name__} failed", error) from error
        return ids

    def _check_drawn(self, ids: Sequence[int], shape: tuple[int, ...]) -> None:
        rows, vocabulary = shape
        if len(ids) != rows:
            raise ValueError(f"{len(ids)} ids for {rows} rows")
        if bad := [i for i in ids if not 0 <= i < vocabulary or i in self._never]:
            raise ValueError(f"the id {bad[0]}, which may not be drawn")


def failure(what: str, error: Exception) -> FstError:
    """Return an error that says which foreign part failed, and how."""
    if isinstance(error, FstError):
        return error
    wrapped = FstError(f"{what}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _view(rows: Sequence[Row], sampler: int, chance: torch.Tensor) -> Rows:
    """Return what one of the samplers sees of the rows."""
    return Rows(
        parameters=[row.parameters[sampler] if row.parameters else None for row in rows],
        history=[row.ids for row in rows],
        uniform=chance,
        prompt_lengths=[row.prompt_length for row in rows],
    )


def _check_adjusted(logits: torch.Tensor, shape: tuple[int, ...]) -> None:
    if logits.shape != shape:
        raise ValueError(f"logits of shape {tuple(logits.shape)}, not {tuple(shape)}")
    if not torch.isfinite(logits.amax(dim=-1)).all():
        raise ValueError("no id is left to draw, or a logit is not a number")


def _logprob(logits: torch.Tensor, chosen: int, top: int) -> Logprob:
    """Return log probabilities, over the whole vocabulary, before any sampler: from (V,) logits."""
    logprobs = logits.log_softmax(dim=-1)
    best = logprobs.topk(top)
    return Logprob(
        chosen,
        logprobs[chosen].item(),
        tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
    )
