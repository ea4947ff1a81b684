"""Evaluators measure a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fst_core.artefacts import LoadedModel
    from fst_core.dataset import Dataset

__all__ = ["Evaluator"]


class Evaluator(ABC):
    """Measures a model on a dataset.

    An author writes a component (see `Tokenizer` for the two modules) whose class is, in short:

        class SizeEvaluator(Evaluator):
            def evaluate(self, model, dataset):
                return {"parameters": float(sum(p.numel() for p in model.module.parameters()))}

    Its Settings may bound its figures: a field `max_parameters: float | None = None` is a gate, and
    a model that has more is not served. The same with `min_`; tables `max` and `min` bound figures
    by name. There is nothing to implement. One that generates asks
    `fst_core.pipeline.evaluate.engine_over(model)` for an engine, and closes it.
    """

    format: ClassVar[int] = 1
    """Raised when the same settings, model and dataset begin to give other figures."""

    @abstractmethod
    def evaluate(self, model: LoadedModel, dataset: Dataset) -> Mapping[str, float | None]:
        """Return figures by name; None where a figure has no meaning for this model (printed n/a)."""
