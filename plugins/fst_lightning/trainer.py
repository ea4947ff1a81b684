"""The trainer `lightning`."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException

from fst_core import Trainer
from fst_core.errors import UserError
from fst_lightning.batches import TrainingBatches, ValidationBatches
from fst_lightning.checkpoints import Checkpoints, State, load_module
from fst_lightning.display import display
from fst_lightning.hardware import accelerator, precision
from fst_lightning.keeper import Keeper
from fst_lightning.language_module import LanguageModule
from fst_lightning.quiet import quiet
from fst_lightning.randomness import Randomness, seed_everything
from fst_lightning.record import Record
from fst_lightning.resumption import resume_loops
from fst_lightning.schedule import Schedule
from fst_lightning.signals import Interrupted, Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from fst_core.dataset import Dataset
    from fst_core.interfaces import Tokenizer
    from fst_core.pipeline.run import Run
    from fst_lightning.settings import LightningSettings

__all__ = ["LightningTrainer"]

_FREE = {"checkpoint_every", "checkpoints_kept", "device", "log_text_samples", "sample_prompts"}
_FREE_ARGUMENTS = {"enable_model_summary", "log_every_n_steps", "profiler"}
"""Settings that may change between the parts of a run: what is learned does not depend on them."""


class LightningTrainer(Trainer):
    """Trains with PyTorch Lightning; a run that was killed goes on as if it had not been.

    The weights stay fp32; `tensorboard/`, `samples.jsonl` and `checkpoints/` lie in the run.
    """

    def __init__(self, settings: LightningSettings) -> None:
        self.settings = settings

    def fit(
        self,
        module: nn.Module,
        dataset: Dataset,
        tokenizer: Tokenizer,  # noqa: ARG002  # a dataset's ids say all
        run: Run,
        sample: Callable[[Sequence[str]], list[str]],
    ) -> Mapping[str, float]:
        """Fit the module in place; it ends with its best weights, in evaluation mode, on the CPU.

        Returns:
            steps, tokens, tokens_per_second, loss (of the last step), and, where there is something to
            validate on, best_step, valid_loss and perplexity (of the best validation).

        Raises:
            UserError: the settings do not go with the dataset, the device or the run.
            FstError: the loss is not finite, or a checkpoint cannot be written.
            KeyboardInterrupt, SystemExit: a signal came; a checkpoint of the last step is written.
        """
        checkpoints = Checkpoints(
            run.directory / "checkpoints",
            self.settings.checkpoints_kept,
            self._identity(dataset, run),
        )
        done = checkpoints.finished()
        if done is None:
            with quiet(), Signals() as signals:
                done = self._train(
                    module, dataset, run, sample=sample, checkpoints=checkpoints, signals=signals
                )
        if done["step"]:
            load_module(module, checkpoints.open(done["step"]).module())
        module.eval()
        figures: Mapping[str, float] = done["figures"]
        return figures

    def _train(
        self,
        module: nn.Module,
        dataset: Dataset,
        run: Run,
        *,
        sample: Callable[[Sequence[str]], list[str]],
        checkpoints: Checkpoints,
        signals: Signals,
    ) -> dict[str, Any]:
        trainer = self._lightning(dataset, run)
        batches = TrainingBatches(
            dataset.train,
            self.settings.batch_size,
            run.seed,
            epoch=lambda: trainer.current_epoch,
            accumulate=trainer.accumulate_grad_batches,
            limit=trainer.limit_train_batches,
            repeat=self.settings.lightning.overfit_batches > 0,
        )
        valid = ValidationBatches(dataset.valid, self.settings.batch_size)
        interval = trainer.val_check_interval
        if (
            isinstance(interval, int)
            and interval > batches.count
            and trainer.check_val_every_n_epoch is not None
        ):
            raise UserError(
                f"[trainer.lightning] val_check_interval = {interval}: an epoch has {batches.count} "
                "batches. Leave out check_val_every_n_epoch, and they count across epochs"
            )
        total = _planned_steps(trainer, batches.count)
        schedule = Schedule(
            total,
            self.settings.num_warmup_steps,
            self.settings.num_cycles,
            self.settings.min_learning_rate_share,
        )
        language = LanguageModule(
            module, self.settings, schedule, trainer.accumulate_grad_batches
        ).train()
        seed_everything(run.seed)
        state, randomness = State(), Randomness.capture()
        if (checkpoint := checkpoints.latest()) is not None:
            state, randomness = checkpoint.state, checkpoint.randomness()
            load_module(module, checkpoint.module())
            language.resumed = (state.step, checkpoint.optimizer())
            resume_loops(trainer, state, batches.count)
        with (
            closing(Record(run.directory, state)) as record,
            closing(display(state, total)) as shown,
        ):
            keeper = Keeper(
                state,
                randomness,
                settings=self.settings,
                language=language,
                run=run,
                checkpoints=checkpoints,
                record=record,
                display=shown,
                signals=signals,
                sample=sample,
            )
            trainer.callbacks.append(keeper)  # type: ignore[attr-defined]  # set by a connector
            try:
                trainer.fit(language, batches, valid)
                if keeper.state.step and not keeper.state.validated and trainer.limit_val_batches:
                    trainer.validate(language, valid, verbose=False)
                keeper.save(trainer)
                signals.check()
            except Interrupted as interrupted:
                raise interrupted.ending() from None
            except MisconfigurationException as error:
                raise UserError(_refused(error)) from error
            except SystemExit as ending:  # Lightning makes exit status 1 of KeyboardInterrupt
                if isinstance(ending.__context__, KeyboardInterrupt):
                    raise KeyboardInterrupt from None
                raise
        last = keeper.state
        return checkpoints.finish(_figures(last), last.best_step or last.step)

    def _lightning(self, dataset: Dataset, run: Run) -> pl.Trainer:
        """Return Lightning's trainer.

        Raises:
            UserError: Lightning refuses its arguments, or FST cannot honour them.
        """
        if not len(dataset.train):
            raise UserError(f"{dataset.directory}: there are no training samples")
        device = accelerator(self.settings)
        arguments = self.settings.lightning.keywords()
        if not len(dataset.valid):
            arguments["limit_val_batches"] = 0
        try:
            trainer = pl.Trainer(
                accelerator=device,
                precision=precision(self.settings, device),
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                default_root_dir=run.directory,
                # On a signal of SLURM, Lightning would write a checkpoint of its own, a pickle.
                plugins=SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None,
                **arguments,
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise UserError(_refused(error)) from error
        if trainer.world_size > 1:
            raise UserError(
                "[trainer.lightning] devices, num_nodes: only one device can train for now"
            )
        return trainer

    def _identity(self, dataset: Dataset, run: Run) -> dict[str, Any]:
        """Return what a run's result depends on."""
        settings = self.settings.model_dump(mode="json", exclude={*_FREE, "lightning"})
        arguments = self.settings.lightning.model_dump(mode="json", exclude=_FREE_ARGUMENTS)
        return {
            "dataset": dataset.fingerprint,
            "seed": run.seed,
            **{f"trainer.{name}": value for name, value in settings.items()},
            **{f"trainer.lightning.{name}": value for name, value in arguments.items()},
        }


def _planned_steps(trainer: pl.Trainer, batches: int) -> int:
    """Return the number of steps that the schedule spans."""
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    limits = [trainer.max_steps] if trainer.max_steps != -1 else []
    if trainer.max_epochs is not None and trainer.max_epochs != -1:
        limits.append(trainer.max_epochs * steps)
    return min(limits)


def _refused(error: Exception) -> str:
    return f"[trainer.lightning] {' '.join(str(error).split())}"


def _figures(state: State) -> dict[str, float]:
    figures: dict[str, float] = {"steps": state.step, "tokens": state.tokens}
    if state.loss is not None:
        figures["loss"] = state.loss
        figures["tokens_per_second"] = state.tokens / max(1e-9, state.seconds)
    if state.best_step is not None and state.best_loss is not None:
        figures["best_step"] = state.best_step
        figures["valid_loss"] = state.best_loss
        figures["perplexity"] = math.exp(min(state.best_loss, 700.0))
    return figures
