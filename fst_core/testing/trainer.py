"""The contract of trainers."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch  # noqa: TID253  # a trainer's contract needs a module
from torch.nn import functional as F  # noqa: N812, TID253  # its customary name; as above

from fst_core import hookimpl
from fst_core.dataset import IGNORED, ordered_batches
from fst_core.pipeline.run import Run
from fst_core.plugins import registry
from fst_core.testing.component import ComponentContract
from fst_core.testing.saved import contents
from fst_core.testing.toys import ToyModule, ToyTokenizer, toy_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fst_core import Trainer
    from fst_core.dataset import Dataset

__all__ = ["TrainerContract"]


class TrainerContract(ComponentContract):
    """What every trainer does. A subclass names it, with settings that take a few steps.

        class TestPlain(TrainerContract):
            use = "plain"
            settings = {"learning_rate": 0.003, "batch_size": 8, "epochs": 3}

    The dataset has 96 samples, of at most 32 ids each, to train on; the module, two small layers.

    It asserts that the module is fitted in place and its loss falls by a tenth; that the figures it
    returns, and those it reports through `run.metrics`, are finite; that the same seed gives the
    same weights; that called again for a finished run it ends with the same weights; and that the
    dataset is not changed.
    """

    kind: ClassVar[str] = "trainer"

    @pytest.fixture
    def trainer(self) -> Trainer:
        """The trainer."""
        trainer: Trainer = self.build()
        return trainer

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        """The samples to learn from."""
        return toy_dataset(tmp_path / "dataset", ToyTokenizer())

    @pytest.fixture
    def reported(self) -> Iterator[list[tuple[int, dict[str, float]]]]:
        """The steps and figures that observers were told."""
        told: list[tuple[int, dict[str, float]]] = []

        @hookimpl
        def fst_metrics(step: int, metrics: Mapping[str, float]) -> None:
            told.append((step, dict(metrics)))

        observer = SimpleNamespace(fst_metrics=fst_metrics)
        registry().hooks.register(observer)
        yield told
        registry().hooks.unregister(observer)

    def test_the_module_is_fitted_in_place(
        self, trainer: Trainer, dataset: Dataset, tmp_path: Path
    ) -> None:
        """The module that was given has learned: its loss on both splits has fallen."""
        module = _module()
        before = _loss(module, dataset)
        _fit(trainer, module, dataset, tmp_path / "run")
        assert _loss(module, dataset) < 0.9 * before

    def test_figures_are_finite(
        self,
        trainer: Trainer,
        dataset: Dataset,
        tmp_path: Path,
        reported: list[tuple[int, dict[str, float]]],
    ) -> None:
        """It returns some, and tells observers some, with the step of the optimizer."""
        figures = _fit(trainer, _module(), dataset, tmp_path / "run")
        assert figures
        assert reported
        steps = [step for step, _ in reported]
        assert steps == sorted(steps)
        assert steps[0] >= 0
        for each in (figures, *(told for _, told in reported)):
            assert all(isinstance(name, str) and math.isfinite(each[name]) for name in each)

    def test_equal_seeds_give_equal_weights(
        self, trainer: Trainer, dataset: Dataset, tmp_path: Path
    ) -> None:
        """Another instance, in another run of the same seed, whatever torch's generator was before."""
        first, second = _module(), _module()
        torch.manual_seed(1)
        _fit(trainer, first, dataset, tmp_path / "run")
        torch.manual_seed(2)
        _fit(self.build(), second, dataset, tmp_path / "other")
        _assert_equal_weights(second, first)

    def test_a_finished_run_ends_with_the_same_weights(
        self, trainer: Trainer, dataset: Dataset, tmp_path: Path
    ) -> None:
        """Called again for the same run, with a module as new, it gives what it gave."""
        first, second = _module(), _module()
        _fit(trainer, first, dataset, tmp_path / "run")
        _fit(self.build(), second, dataset, tmp_path / "run")
        _assert_equal_weights(second, first)

    def test_the_dataset_is_not_changed(
        self, trainer: Trainer, dataset: Dataset, tmp_path: Path
    ) -> None:
        """What a trainer writes, it writes in its run."""
        before = contents(dataset.directory)
        _fit(trainer, _module(), dataset, tmp_path / "run")
        assert contents(dataset.directory) == before


def _module() -> ToyModule:
    torch.manual_seed(228)
    return ToyModule(ToyTokenizer.vocab_size, context_length=64)


def _fit(
    trainer: Trainer, module: torch.nn.Module, dataset: Dataset, directory: Path
) -> Mapping[str, float]:
    directory.mkdir(exist_ok=True)

    def sample(prompts: Sequence[str]) -> list[str]:
        assert not isinstance(prompts, str), "prompts are a sequence of texts"
        return [f"{prompt}..." for prompt in prompts]

    run = Run(directory.name, directory, seed=228)
    return trainer.fit(module, dataset, ToyTokenizer(), run, sample)


def _loss(module: torch.nn.Module, dataset: Dataset) -> float:
    """Return the mean loss of an id in both splits."""
    total, count = 0.0, 0
    device = next(module.parameters()).device
    for samples in (dataset.train, dataset.valid):
        for batch in ordered_batches(samples, 16):
            labels = torch.from_numpy(batch.labels)[:, 1:].flatten().to(device)
            with torch.no_grad():
                logits = module(input_ids=torch.from_numpy(batch.ids).to(device)).logits[:, :-1]
            total += F.cross_entropy(
                logits.flatten(0, 1), labels, ignore_index=IGNORED, reduction="sum"
            ).item()
            count += int((labels != IGNORED).sum())
    return total / count


def _assert_equal_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    differing = [name for name in ours if not torch.equal(ours[name].cpu(), theirs[name].cpu())]
    assert differing == []
