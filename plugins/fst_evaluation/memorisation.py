"""The evaluator `memorisation`: how much of what a model writes it repeats from its training corpus."""

from __future__ import annotations

import asyncio
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from fst_core import Evaluator, Request
from fst_core.pipeline.evaluate import engine_over
from fst_evaluation.device import device
from fst_evaluation.spans import found_in

if TYPE_CHECKING:
    from fst_core.artefacts import LoadedModel
    from fst_core.dataset import Dataset
    from fst_evaluation.settings import MemorisationSettings
    from fst_evaluation.spans import Span

__all__ = ["MemorisationEvaluator"]

_TOGETHER: Final = 16
"""Texts that are generated at once."""


class MemorisationEvaluator(Evaluator):
    """Counts the spans of generated texts that stand word for word in the training corpus.

    Spans of 50 ids are those of Carlini et al. 2021 (Extracting Training Data from Large Language
    Models). Texts are drawn by the model's own samplers; the prompt is not part of them.

    Raises:
        UserError: the device that the settings name is not here.
    """

    def __init__(self, settings: MemorisationSettings) -> None:
        self.settings = settings
        self._device = device(settings.device)

    def evaluate(self, model: LoadedModel, dataset: Dataset) -> dict[str, float | None]:
        """Return the `share` of spans that are found, and how many `spans` there were.

        The share is None where no text was as long as a span.
        """
        model.module.to(self._device)
        length = self.settings.length
        spans: list[Span] = [
            text[first : first + length]
            for text in asyncio.run(self._texts(model))
            for first in range(len(text) - length + 1)
        ]
        found = found_in(dataset.train.corpus, set(spans))
        repeated = sum(span in found for span in spans)
        return {
            "share": repeated / len(spans) if spans else None,
            "spans": float(len(spans)),
        }

    async def _texts(self, model: LoadedModel) -> list[tuple[int, ...]]:
        """Return the ids of the generated texts."""
        prompts = islice(cycle(self.settings.prompts), self.settings.number)
        requests = [
            Request(
                prompt=prompt,
                max_new_tokens=self.settings.max_new_tokens,
                seed=self.settings.seed + index,
            )
            for index, prompt in enumerate(prompts)
        ]
        engine = engine_over(model)
        try:
            generations = [
                generation
                for first in range(0, len(requests), _TOGETHER)
                for generation in await asyncio.gather(
                    *map(engine.generate, requests[first : first + _TOGETHER])
                )
            ]
        finally:
            await engine.close()
        return [generation.ids for generation in generations]
