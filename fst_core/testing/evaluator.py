"""The contract of evaluators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch  # noqa: TID253  # an evaluator's contract needs a module

from fst_core.testing.component import ComponentContract
from fst_core.testing.saved import contents
from fst_core.testing.toys import ToyTokenizer, toy_dataset, toy_model

if TYPE_CHECKING:
    from pathlib import Path

    from fst_core import Evaluator
    from fst_core.artefacts import LoadedModel
    from fst_core.dataset import Dataset

__all__ = ["EvaluatorContract"]


class EvaluatorContract(ComponentContract):
    """What every evaluator does. A subclass names it.

        class TestSize(EvaluatorContract):
            use = "size"

    An evaluator that needs more than a small model overrides the fixture `model`, and one that
    needs other samples the fixture `dataset`.

    It asserts that figures are finite numbers or None, by name; that they are the same each time,
    whatever torch's generator; that a lossy tokenizer is no error; and that neither the model nor
    the dataset is changed.
    """

    kind: ClassVar[str] = "evaluator"

    @pytest.fixture
    def evaluator(self) -> Evaluator:
        """The evaluator."""
        evaluator: Evaluator = self.build()
        return evaluator

    @pytest.fixture
    def model(self, tmp_path: Path) -> LoadedModel:
        """The model to measure."""
        return toy_model(tmp_path / "model", ToyTokenizer())

    @pytest.fixture
    def dataset(self, tmp_path: Path, model: LoadedModel) -> Dataset:
        """The dataset to measure it on."""
        return toy_dataset(tmp_path / "dataset", model.tokenizer)

    def test_figures_are_finite_numbers_or_none(
        self, evaluator: Evaluator, model: LoadedModel, dataset: Dataset
    ) -> None:
        """At least one, each with a name; one that has no meaning for this model is None."""
        figures = evaluator.evaluate(model, dataset)
        assert figures
        for name, figure in figures.items():
            assert isinstance(name, str)
            assert name
            assert figure is None or (type(figure) is float and math.isfinite(figure)), name

    def test_figures_are_the_same_each_time(
        self, evaluator: Evaluator, model: LoadedModel, dataset: Dataset
    ) -> None:
        """Another time, by another instance, under another seed of torch."""
        torch.manual_seed(1)
        first = dict(evaluator.evaluate(model, dataset))
        torch.manual_seed(2)
        assert dict(evaluator.evaluate(model, dataset)) == first
        other: Evaluator = self.build()
        assert dict(other.evaluate(model, dataset)) == first

    def test_a_lossy_tokenizer_is_no_error(
        self,
        evaluator: Evaluator,
        model: LoadedModel,
        dataset: Dataset,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Figures have the same names; some may be None."""
        names = evaluator.evaluate(model, dataset).keys()
        monkeypatch.setattr(type(model.tokenizer), "lossy", True)
        assert evaluator.evaluate(model, dataset).keys() == names

    def test_nothing_is_changed(
        self, evaluator: Evaluator, model: LoadedModel, dataset: Dataset
    ) -> None:
        """The weights, the module's mode and every file are as before; no gradient is left."""
        weights = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
        files = contents(model.directory), contents(dataset.directory)
        evaluator.evaluate(model, dataset)
        after = model.module.state_dict()
        assert [name for name in weights if not torch.equal(weights[name], after[name])] == []
        assert not model.module.training
        assert all(parameter.grad is None for parameter in model.module.parameters())
        assert (contents(model.directory), contents(dataset.directory)) == files
