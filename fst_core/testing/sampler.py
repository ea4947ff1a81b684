"""The contract of samplers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from fst_core import Rows
from fst_core.testing.component import ComponentContract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from fst_core import Sampler

__all__ = ["SamplerContract"]


class SamplerContract(ComponentContract):
    """What every sampler does. A subclass names it.

        class TestBan(SamplerContract):
            use = "ban"
            settings = {"banned": [3]}
            overrides = {"banned": [3, 4]}  # fields of its settings that a request may set

    It asserts that ids lie within the vocabulary; that equal numbers in [0, 1) give equal ids;
    that a row's result does not depend on its neighbours or their parameters; that a logit of -inf
    stays one and is never drawn; that something is left to draw; that any text so far will do; and
    that a row's own parameters count, where `overrides` names some that change the outcome.
    """

    kind: ClassVar[str] = "sampler"
    overrides: ClassVar[Mapping[str, Any]] = {}
    """Other values of some settings, with which other logits come out."""
    vocabulary: ClassVar[int] = 500
    """The number of ids."""

    @pytest.fixture
    def sampler(self) -> Sampler:
        """The sampler."""
        sampler: Sampler = self.build()
        return sampler

    def test_ids_lie_within_the_vocabulary(self, sampler: Sampler) -> None:
        """An id a row, (B,) int64, at both ends of [0, 1) too."""
        import torch

        logits = self._logits(3)
        rows = self._rows(3, uniform=[0.0, 0.5, 1 - 2**-53])
        adjusted = sampler.adjust(logits.clone(), rows)
        ids = sampler.draw(adjusted, rows)
        assert adjusted.shape == logits.shape
        assert adjusted.dtype == torch.float32
        assert ids.shape == (3,)
        assert ids.dtype == torch.int64
        assert all(0 <= i < self.vocabulary for i in ids.tolist())

    def test_equal_numbers_give_equal_ids(self, sampler: Sampler) -> None:
        """Nothing but `rows` decides: no hidden generator, no memory."""
        logits = self._logits(8)
        rows = self._rows(8)
        first = self._drawn(sampler, logits, rows)
        self._drawn(sampler, self._logits(8, seed=1), self._rows(8))
        assert self._drawn(sampler, logits, rows) == first

    def test_rows_are_independent(self, sampler: Sampler) -> None:
        """Each row alone gives what it gives among others, whatever their parameters are."""
        import torch

        logits = self._logits(6)
        rows = self._rows(
            6, parameters=[self.configured(**(self.overrides if i % 2 else {})) for i in range(6)]
        )
        together = sampler.adjust(logits.clone(), rows)
        ids = sampler.draw(together.clone(), rows)
        for row in range(6):
            one = _only(rows, row)
            alone = sampler.adjust(logits[row : row + 1].clone(), one)
            torch.testing.assert_close(alone[0], together[row])
            assert sampler.draw(alone, one).tolist() == [int(ids[row])]

    def test_minus_infinity_is_never_drawn(self, sampler: Sampler) -> None:
        """What another sampler ruled out stays so, at both ends of [0, 1) too."""
        logits = self._logits(40)
        logits[:, : self.vocabulary // 4] = -math.inf
        logits[:, -self.vocabulary // 4 :] = -math.inf
        logits[:, ::2] = -math.inf
        uniform = [0.0, 1 - 2**-53, *(i / 38 for i in range(38))]
        rows = self._rows(40, uniform=uniform)
        adjusted = sampler.adjust(logits.clone(), rows)
        assert not (adjusted[logits == -math.inf] > -math.inf).any()
        ids = sampler.draw(adjusted, rows)
        assert (logits.gather(1, ids[:, None]) > -math.inf).all()

    def test_something_is_left_to_draw(self, sampler: Sampler) -> None:
        """A row that had something to draw still has; and what is certain is drawn."""
        import torch

        logits = self._logits(4)
        adjusted = sampler.adjust(logits.clone(), self._rows(4))
        assert (adjusted > -math.inf).any(dim=-1).all()
        likeliest = adjusted.argmax(dim=-1, keepdim=True)
        certain = torch.full_like(logits, -math.inf).scatter_(1, likeliest, 0.0)
        assert sampler.draw(certain, self._rows(4)).tolist() == likeliest.squeeze(1).tolist()

    def test_any_text_so_far_will_do(self, sampler: Sampler) -> None:
        """No text at all, a prompt alone, one id over and over, every id there is."""
        history = [[], [1, 2], [7] * 50, list(range(self.vocabulary))]
        rows = self._rows(4, history=history, prompt_lengths=[0, 2, 0, 10])
        adjusted = sampler.adjust(self._logits(4), rows)
        assert not adjusted.isnan().any()
        assert (adjusted > -math.inf).any(dim=-1).all()

    def test_a_rows_own_parameters_count(self, sampler: Sampler) -> None:
        """A request's parameters change its own row, and no other."""
        if not self.overrides:
            pytest.skip("this contract has no `overrides`")
        logits = (self._logits(1) / 6).repeat(3, 1)  # flat, so that there is something to rule out
        likeliest = logits[0].topk(3).indices.tolist()
        own = [self.configured(**values) for values in ({}, self.overrides, {})]
        rows = self._rows(3, parameters=own, history=[likeliest] * 3, uniform=[0.5] * 3)
        adjusted = sampler.adjust(logits, rows)
        assert adjusted[0].equal(adjusted[2])
        assert not adjusted[0].equal(adjusted[1])

    def _logits(self, count: int, seed: int = 0) -> torch.Tensor:
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.vocabulary, generator=generator) * 3

    def _rows(
        self,
        count: int,
        *,
        parameters: Sequence[Any] | None = None,
        history: Sequence[Sequence[int]] | None = None,
        uniform: Sequence[float] | None = None,
        prompt_lengths: Sequence[int] | None = None,
    ) -> Rows:
        import torch

        from fst_core.testing.toys import ToyTokenizer

        numbers = [(i * 0.618) % 1 for i in range(count)] if uniform is None else uniform
        texts = [[(row * 7 + i) % self.vocabulary for i in range(row + 2)] for row in range(count)]
        return Rows(
            parameters=parameters or [self.configured()] * count,
            history=history or texts,
            uniform=torch.tensor(numbers, dtype=torch.float64),
            prompt_lengths=prompt_lengths or [1] * count,
            tokenizer=ToyTokenizer(),
            keys=range(count),
        )

    @staticmethod
    def _drawn(sampler: Sampler, logits: torch.Tensor, rows: Rows) -> list[int]:
        ids: list[int] = sampler.draw(sampler.adjust(logits.clone(), rows), rows).tolist()
        return ids


def _only(rows: Rows, row: int) -> Rows:
    """Return one row of a batch as a batch of its own."""
    return replace(
        rows,
        parameters=rows.parameters[row : row + 1],
        history=rows.history[row : row + 1],
        uniform=rows.uniform[row : row + 1],
        prompt_lengths=rows.prompt_lengths[row : row + 1],
        keys=rows.keys[row : row + 1],
    )
