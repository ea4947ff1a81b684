"""Trainers fit a module to a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from fst_core.dataset import Dataset
    from fst_core.interfaces.tokenizer import Tokenizer
    from fst_core.pipeline.run import Run

__all__ = ["Trainer"]


class Trainer(ABC):
    """Fits a module to a dataset.

    A trainer keeps what it needs to go on under `run.directory`: when called again for the same
    run, it continues there. Where several processes train together, `fit` is called in each of them,
    and the first alone writes; `fst_core.pipeline.process.leads()` says which that is.

    An author writes a component (see `Tokenizer` for the two modules) whose class is, in short:

        class PlainTrainer(Trainer):
            def __init__(self, settings: PlainSettings) -> None:
                self.settings = settings

            def fit(self, module, dataset, tokenizer, run, sample):
                optimizer = torch.optim.AdamW(module.parameters(), lr=self.settings.learning_rate)
                for step, batch in enumerate(epoch_batches(dataset.train, 8, run.seed, epoch=0)):
                    ids = torch.from_numpy(batch.ids)                           # (B, T) int64
                    logits = module(input_ids=ids).logits[:, :-1]               # (B, T - 1, V)
                    labels = torch.from_numpy(batch.labels)[:, 1:]              # -100: not counted
                    loss = cross_entropy(logits.flatten(0, 1), labels.flatten())
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    run.metrics(step, {"loss": loss.item()})
                return {"loss": loss.item()}
    """

    format: ClassVar[int] = 1
    """Raised when the same settings, seed and dataset begin to give another module."""
    free: ClassVar[frozenset[str]] = frozenset()
    """Settings, by dotted keys, that what is learned does not depend on: a run goes on with others."""

    @abstractmethod
    def fit(
        self,
        module: torch.nn.Module,
        dataset: Dataset,
        tokenizer: Tokenizer,
        run: Run,
        sample: Callable[[Sequence[str]], list[str]],
    ) -> Mapping[str, float]:
        """Fit the module in place; it ends with the best weights found.

        Args:
            module: built by a Model; forward as described there.
            dataset: the samples to learn from and to validate on.
            tokenizer: the tokenizer of the dataset.
            run: where to keep checkpoints and logs, the seed, and whom to tell of metrics.
            sample: continues prompts with the module as it is now, by the pipeline's engine and samplers.

        Returns:
            Final figures, such as {"loss": ..., "valid_loss": ...}.

        Raises:
            FstError: training failed; what was reached is kept in the run.
        """

    def planned_steps(self, dataset: Dataset, run: Run) -> int | None:  # noqa: ARG002  # for those that override it
        """Return how many steps of the optimizer `fit` would take; None if that is not known before.

        `fst plan` asks; nothing is written.

        Raises:
            UserError: the settings do not go with the dataset or the device.
        """
        return None

    def planned_validations(
        self,
        dataset: Dataset,  # noqa: ARG002  # for those that override it
        run: Run,  # noqa: ARG002  # the same
        steps: int,  # noqa: ARG002  # the same
    ) -> tuple[int, float]:
        """Return how many validations `fit` makes in so many steps, and on which share of the samples each.

        `fst plan` asks, and adds their time to that of the steps; nothing is written.
        """
        return 0, 1.0

    def for_trial(self, every: int) -> Trainer:  # noqa: ARG002  # for those that override it
        """Return a trainer whose steps take what this one's do, for `fst plan` to look at.

        It reports each step, and all that `fit` does beside steps (validations on all samples, texts,
        checkpoints) it does after each so many of them, and never elsewhere.
        """
        return self
