"""The trainer `lightning`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from fst_core import Trainer
from fst_core.pipeline.override import is_overridden
from fst_lightning.caches import limit_caches
from fst_lightning.checkpoints import Checkpoints, load_module
from fst_lightning.hardware import accelerator
from fst_lightning.quiet import quiet
from fst_lightning.signals import Signals
from fst_lightning.training import Training, planned_steps, planned_validations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from fst_core.dataset import Dataset
    from fst_core.interfaces import Tokenizer
    from fst_core.pipeline.run import Run
    from fst_lightning.settings import LightningSettings

__all__ = ["LightningTrainer"]


class LightningTrainer(Trainer):
    """Trains with PyTorch Lightning; a run that was killed goes on as if it had not been.

    The weights stay fp32; `tensorboard/`, `samples.jsonl` and `checkpoints/` lie in the run. Where
    several processes train, each is called with the same arguments, and the first alone writes.
    """

    format: ClassVar[int] = 2
    free: ClassVar[frozenset[str]] = frozenset(
        {
            "checkpoint_every",
            "checkpoints_kept",
            "device",
            "lightning.devices",
            "lightning.enable_model_summary",
            "lightning.log_every_n_steps",
            "lightning.num_nodes",
            "lightning.profiler",
            "lightning.strategy",
            "log_text_samples",
            "on_nan",
            "peak_tflops",
            "sample_prompts",
        }
    )

    def __init__(self, settings: LightningSettings) -> None:
        """Take the settings, and see that their device is here: a pipeline's trainer is built before any work.

        Raises:
            UserError: the device that the settings name is not here.
        """
        accelerator(settings)
        self.settings = settings

    def fit(
        self,
        module: nn.Module,
        dataset: Dataset,
        tokenizer: Tokenizer,
        run: Run,
        sample: Callable[[Sequence[str]], list[str]],
    ) -> Mapping[str, float]:
        """Fit the module in place; it ends with its best weights, in evaluation mode, on the CPU.

        Returns:
            steps, tokens, tokens_per_second, loss (of the last step), and, where there is something to
            validate on, best_step, valid_loss, perplexity and bits_per_byte (of the best validation).

        Raises:
            UserError: the settings do not go with the dataset, the device or the run.
            FstError: the loss is not finite, memory is too short, or a checkpoint cannot be written.
            KeyboardInterrupt, SystemExit: a signal came; a checkpoint of the last step is written.
        """
        limit_caches()
        checkpoints = Checkpoints(
            run.directory / "checkpoints",
            self.settings.checkpoints_kept,
            self._identity(dataset, run),
            overridden=is_overridden(run.directory),
        )
        done = checkpoints.finished()
        if done is None:
            valid_bytes = 0 if tokenizer.lossy else dataset.valid.text_bytes
            with quiet(), Signals() as signals, _written(checkpoints, signals):
                training = Training(
                    self.settings, module, dataset, run, checkpoints=checkpoints, signals=signals
                )
                done = training.carry_out(sample, valid_bytes)
        if done["step"]:
            load_module(module, checkpoints.open(done["step"]).module())
        module.eval()
        figures: Mapping[str, float] = done["figures"]
        return figures

    def planned_steps(self, dataset: Dataset, run: Run) -> int | None:
        """Return how many steps `fit` would take; None where `minutes` decides it.

        Raises:
            UserError: the settings do not go with the dataset or the device.
        """
        with quiet():
            return planned_steps(self.settings, dataset, run)

    def planned_validations(self, dataset: Dataset, run: Run, steps: int) -> tuple[int, float]:
        """Return how many validations `fit` makes in so many steps, and on which share of the samples each.

        Raises:
            UserError: the settings do not go with the dataset or the device.
        """
        with quiet():
            return planned_validations(self.settings, dataset, run, steps)

    def for_trial(self, every: int) -> LightningTrainer:
        """Return a trainer that validates, and writes texts and a checkpoint, after each so many steps.

        It trains in this process alone, on one device.
        """
        arguments = self.settings.lightning
        devices = arguments.devices
        changed: dict[str, Any] = {
            "devices": devices[:1] if isinstance(devices, list) else 1,
            "num_nodes": 1,
            "strategy": "auto",
            "val_check_interval": every * arguments.accumulate_grad_batches,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
            "profiler": None,
        }
        if arguments.limit_val_batches != 0:
            changed["limit_val_batches"] = None
        lightning = arguments.model_copy(update=changed)
        settings = {"checkpoint_every": every, "lightning": lightning}
        return LightningTrainer(self.settings.model_copy(update=settings))

    def _identity(self, dataset: Dataset, run: Run) -> dict[str, Any]:
        """Return what a run's result depends on."""
        settings = self.settings.model_dump(mode="json", exclude={"lightning"})
        arguments = self.settings.lightning.model_dump(mode="json")
        settings |= {f"lightning.{name}": value for name, value in arguments.items()}
        return {
            "dataset": dataset.fingerprint,
            "seed": run.seed,
            **{f"trainer.{name}": v for name, v in settings.items() if name not in self.free},
        }


@contextmanager
def _written(checkpoints: Checkpoints, signals: Signals) -> Iterator[None]:
    """Wait at the end until the last checkpoint is written, unless there is a hurry.

    Raises:
        FstError: it cannot be written.
    """
    try:
        yield
    finally:
        if not signals.hurried:
            checkpoints.wait()
