"""Sampling: the pipeline's samplers over the rows of a batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fst_core import Rows, Sampler
from fst_core.chance import uniform
from fst_core.errors import FstError, UserError
from fst_core.generation import Logprob

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fst_core import Tokenizer
    from fst_core.interfaces.engine import Samplers
    from fst_engine.row import Row

    Drawn = tuple[int, Logprob | None]
    """An id, and its log probability where the row asks for it."""

__all__ = ["Sampling", "failure", "logprobs"]


class Sampling:
    """Draws an id for each row: `adjust` of every sampler in order, `draw` of the last.

    Without samplers, an id is drawn as likely as the model says.
    """

    def __init__(
        self, samplers: Samplers, never: Collection[int] = (), tokenizer: Tokenizer | None = None
    ) -> None:
        self._samplers: list[Sampler] = [sampler for sampler, _ in samplers] or [Sampler()]
        self._never = sorted(never)
        self._tokenizer = tokenizer

    def __call__(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[Drawn | FstError]:
        """Draw from (B, V) logits; a row that cannot be drawn gets its error, alone."""
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
            (i, None if top is None else logprobs(logits[number : number + 1], [i], top)[0])
            for number, (i, top) in enumerate(zip(ids, (row.logprobs for row in rows), strict=True))
        ]

    def _draw(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
        numbers = [uniform(row.seed, len(row.ids) - row.prompt_length) for row in rows]
        chance = torch.tensor(numbers, dtype=torch.float64)
        sampler = self._samplers[0]
        try:
            # The one copy of a step: samplers may work in place.
            adjusted = logits.to(torch.float32, copy=True)
            adjusted[:, self._never] = -math.inf
            for number, row in enumerate(rows):
                ends = list(row.ends)
                if len(row.ids) < row.min_length:
                    adjusted[number, ends] = -math.inf
                elif not row.ends.isdisjoint(self._never):
                    adjusted[number, ends] = logits[number, ends].float()
            for number, sampler in enumerate(self._samplers):
                view = self._view(rows, number, chance)
                adjusted = sampler.adjust(adjusted, view)
            _check_adjusted(adjusted, logits.shape)
            ids: list[int] = sampler.draw(adjusted, view).tolist()
            self._check_drawn(ids, rows, logits.shape[-1])
        except UserError:  # what a sampler says of a request is no failure
            raise
        except Exception as error:  # a stranger's sampler may raise anything
            raise failure(f"the sampler {type(sampler).__name__} failed", error) from error
        return ids

    def _view(self, rows: Sequence[Row], sampler: int, chance: torch.Tensor) -> Rows:
        """Return what one of the samplers sees of the rows."""
        return Rows(
            parameters=[row.parameters[sampler] if row.parameters else None for row in rows],
            history=[row.ids for row in rows],
            uniform=chance,
            prompt_lengths=[row.prompt_length for row in rows],
            tokenizer=self._tokenizer,
            keys=[row.ticket for row in rows],
        )

    def _check_drawn(self, ids: Sequence[int], rows: Sequence[Row], vocabulary: int) -> None:
        if len(ids) != len(rows):
            raise ValueError(f"{len(ids)} ids for {len(rows)} rows")
        for i, row in zip(ids, rows, strict=True):
            too_early = i in row.ends and len(row.ids) < row.min_length
            never = i in self._never and i not in row.ends
            if not 0 <= i < vocabulary or never or too_early:
                raise ValueError(f"the id {i}, which may not be drawn")


def failure(what: str, error: Exception) -> FstError:
    """Return an error that says which foreign part failed, and how; one of the request is that itself."""
    if isinstance(error, UserError):
        return error
    wrapped = FstError(f"{what}: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def logprobs(logits: torch.Tensor, ids: Sequence[int], top: int) -> list[Logprob]:
    """Return log probabilities, over the whole vocabulary, before any sampler.

    Args:
        logits: (T, V).
        ids: (T,) the id that each row is followed by.
        top: how many most likely ids to report beside each.
    """
    table = logits.float().log_softmax(dim=-1)
    best = table.topk(top)
    chosen = table.gather(1, torch.tensor(ids, device=table.device)[:, None])
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        Logprob(i, logprob, tuple(zip(indices, values, strict=True)))
        for i, logprob, (indices, values) in zip(
            ids, chosen.squeeze(1).tolist(), likeliest, strict=True
        )
    ]


def _check_adjusted(logits: torch.Tensor, shape: tuple[int, ...]) -> None:
    if logits.shape != shape:
        raise ValueError(f"logits of shape {tuple(logits.shape)}, not {tuple(shape)}")
    if not torch.isfinite(logits.amax(dim=-1)).all():
        raise ValueError("no id is left to draw, or a logit is not a number")
