"""One training: what `fit` does where there is something to do."""

from __future__ import annotations

import math
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from fst_core.dataset import collate
from fst_core.errors import FstError, UserError
from fst_lightning.batches import TrainingBatches, ValidationBatches
from fst_lightning.budget import Budget, Corpus
from fst_lightning.checkpoints import Checkpoints, State, load_module
from fst_lightning.defaults import learning_rate, longest_warmup, set_dropout
from fst_lightning.display import Silent, display
from fst_lightning.division import STRATEGY, Divided, check_divisible
from fst_lightning.hardware import accelerator, precision
from fst_lightning.keeper import Keeper
from fst_lightning.language_module import LanguageModule
from fst_lightning.memory import is_out_of_memory
from fst_lightning.processes import ending_with
from fst_lightning.randomness import Randomness, seed_everything
from fst_lightning.record import Record
from fst_lightning.resumption import resume_loops
from fst_lightning.schedule import Schedule
from fst_lightning.signals import Interrupted, Signals
from fst_lightning.utilisation import flops_per_token, peak_flops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from fst_core.dataset import Dataset
    from fst_core.pipeline.run import Run
    from fst_lightning.display import Display
    from fst_lightning.settings import LightningSettings

__all__ = ["Training", "planned_steps", "planned_validations"]


class Training:
    """One call of `fit` that has something to do."""

    def __init__(
        self,
        settings: LightningSettings,
        module: nn.Module,
        dataset: Dataset,
        run: Run,
        *,
        checkpoints: Checkpoints,
        signals: Signals,
    ) -> None:
        self.settings = settings
        self.module = module
        self.dataset = dataset
        self.run = run
        self.checkpoints = checkpoints
        self.signals = signals
        self.checkpoint = checkpoints.latest()
        self.state = self.checkpoint.state if self.checkpoint else State()
        self.trainer = _lightning(settings, dataset, run, self.state.total)
        if isinstance(self.trainer.strategy, Divided):
            check_divisible(module)
        self.batches = TrainingBatches(
            dataset.train,
            settings,
            run.seed,
            epoch=lambda: self.trainer.current_epoch,
            limit=self.trainer.limit_train_batches,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        self._check_interval()

    def carry_out(
        self, sample: Callable[[Sequence[str]], list[str]], valid_bytes: int
    ) -> dict[str, Any]:
        """Train, and return what `Checkpoints.finish` recorded."""
        settings, trainer, batches = self.settings, self.trainer, self.batches
        valid = ValidationBatches(self.dataset.valid, settings, batches.rank, batches.world)
        total = _steps(trainer, batches.count)
        budget = self._budget()
        found = [] if budget is None else budget.before(self.state.step)
        schedule = Schedule(
            total if budget is None else None,
            settings.num_warmup_steps,
            settings.num_cycles,
            settings.min_learning_rate_share,
            longest_warmup(settings),
        )
        for after, number in found:
            schedule.expect(number, after)
        rate = settings.learning_rate
        if rate is None:
            rate = learning_rate(self.module, collate(self.dataset.train, _FIRST))
        language = LanguageModule(self.module, settings, schedule, learning_rate=rate).train()
        self._save_memory()
        seed_everything(self.run.seed)
        randomness = Randomness.capture()
        if self.checkpoint is not None:
            randomness = self.checkpoint.randomness()
            load_module(self.module, self.checkpoint.module())
            language.resumed = (self.state.step, self.checkpoint.optimizer())
            resume_loops(trainer, self.state, batches.count)
        follows = batches.rank > 0
        with (
            closing(Silent() if follows else display(self.state, total)) as shown,
            closing(Silent() if follows else Record(self.run.directory, self.state)) as record,
        ):

            def fix(after: int, total: int) -> None:
                if schedule.total is None:
                    shown.say(f"{settings.minutes:g} minutes are about {total} steps")
                    self._set_dropout(language.module, total, shown)
                schedule.expect(total, after)
                trainer.fit_loop.epoch_loop.max_steps = total
                shown.expect(total)

            if settings.learning_rate is None:
                shown.say(f"learning rate {rate:.2g}, by the number of parameters")
            if total is not None:  # of `minutes`, the first number that was found
                self._set_dropout(self.module, found[0][1] if found else total, shown)
            keeper = Keeper(
                self.state,
                randomness,
                settings=settings,
                language=language,
                batches=batches,
                run=self.run,
                checkpoints=self.checkpoints,
                record=record if isinstance(record, Record) else None,
                display=shown,
                signals=self.signals,
                sample=sample,
                budget=budget,
                fixed=fix,
                valid_bytes=valid_bytes,
                flops=self._flops(),
            )
            trainer.callbacks.append(keeper)  # type: ignore[attr-defined]  # set by a connector
            self._fit(keeper, language, valid)
            keeper.validations.finish()
            shown.say(keeper.summary())
        last = keeper.state
        return self.checkpoints.finish(_figures(last), last.best_step or last.step)

    def _fit(self, keeper: Keeper, language: LanguageModule, valid: ValidationBatches) -> None:
        trainer = self.trainer
        try:
            with ending_with(trainer):
                trainer.fit(language, self.batches, valid)
                if keeper.state.step and not keeper.state.validated and trainer.limit_val_batches:
                    trainer.validate(language, valid, verbose=False)
                keeper.save(trainer)
                self.checkpoints.wait()
                self.signals.check()
        except Interrupted as interrupted:
            keeper.tell_interrupted()
            raise (SystemExit(0) if self.batches.rank else interrupted.ending()) from None
        except MisconfigurationException as error:
            raise UserError(_refused(error)) from error
        except FstError:
            if self.batches.rank:  # the first process has the same error, and tells it
                raise SystemExit(0) from None
            raise
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise FstError(
                    f"step {keeper.state.step + 1}: out of memory. Lower batch_size, and raise "
                    "lightning.accumulate_grad_batches as much: a step then learns from as many samples"
                ) from error
            raise
        except SystemExit as ending:  # Lightning makes exit status 1 of KeyboardInterrupt
            if isinstance(ending.__context__, KeyboardInterrupt):
                keeper.tell_interrupted()
                raise KeyboardInterrupt from None
            raise
        finally:
            if self.settings.gradient_checkpointing:
                self.module.gradient_checkpointing_disable()  # type: ignore[operator]  # transformers'

    def _check_interval(self) -> None:
        trainer, count = self.trainer, self.batches.count
        interval = trainer.val_check_interval
        if (
            isinstance(interval, int)
            and interval > count
            and trainer.check_val_every_n_epoch is not None
        ):
            raise UserError(
                f"[trainer.lightning] val_check_interval = {interval}: an epoch has {count} "
                "batches. Leave out check_val_every_n_epoch, and they count across epochs"
            )

    def _save_memory(self) -> None:
        if not self.settings.gradient_checkpointing:
            return
        enable = getattr(self.module, "gradient_checkpointing_enable", None)
        if enable is None:
            raise UserError("[trainer] gradient_checkpointing: this model cannot. Leave it out")
        enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _set_dropout(self, module: nn.Module, total: int, shown: Display) -> None:
        epochs = total / max(1, math.ceil(self.batches.count / self.batches.accumulate))
        chosen = set_dropout(module, self.settings, self.run.directory, epochs)
        if chosen == 0 and self.settings.dropout == "auto":
            shown.say(f"no dropout, as text is seen {epochs:.1f} times at most")

    def _budget(self) -> Budget | None:
        if self.settings.minutes is None:
            return None
        steps = max(1, math.ceil(self.batches.count / self.batches.accumulate))
        valid_tokens = self.dataset.valid.tokens if self.trainer.limit_val_batches else 0
        each = _steps_per_validation(self.trainer, self.batches.count)
        corpus = Corpus(self.dataset.train.tokens / steps, valid_tokens, each)
        return Budget(self.settings.minutes, corpus, self.checkpoints.directory / "minutes.json")

    def _flops(self) -> tuple[float, float] | None:
        device = accelerator(self.settings)
        peak = peak_flops(self.settings, device, precision(self.settings, device))
        if peak is None:
            return None
        length = self.dataset.train.tokens / len(self.dataset.train)
        return flops_per_token(self.module, round(length)), peak * self.trainer.world_size


def planned_steps(settings: LightningSettings, dataset: Dataset, run: Run) -> int | None:
    """Return how many steps a training has; None where `minutes` decides it.

    Raises:
        UserError: the settings do not go with the dataset or the device.
    """
    trainer = _lightning(settings, dataset, run, None)
    batches = TrainingBatches(
        dataset.train, settings, run.seed, epoch=int, limit=trainer.limit_train_batches
    )
    return _steps(trainer, batches.count)


def planned_validations(
    settings: LightningSettings, dataset: Dataset, run: Run, steps: int
) -> tuple[int, float]:
    """Return how many validations so many steps have, the one at the end too, and the share of samples of each.

    Raises:
        UserError: the settings do not go with the dataset or the device.
    """
    trainer = _lightning(settings, dataset, run, None)
    limit = trainer.limit_val_batches
    if not limit:
        return 0, 1.0
    batches = TrainingBatches(
        dataset.train, settings, run.seed, epoch=int, limit=trainer.limit_train_batches
    )
    number = _validations(trainer, batches.count, steps)
    if isinstance(limit, int):
        limit = min(1.0, limit / len(ValidationBatches(dataset.valid, settings)))
    return number, limit


_FIRST = torch.zeros(1, dtype=torch.int64).numpy()
"""The first sample alone."""


def _lightning(
    settings: LightningSettings, dataset: Dataset, run: Run, total: int | None
) -> pl.Trainer:
    """Return Lightning's trainer; `total` is the number of steps that `minutes` are, once it is known.

    Raises:
        UserError: Lightning refuses its arguments, or FST cannot honour them.
    """
    if not len(dataset.train):
        raise UserError(f"{dataset.directory}: there are no training samples")
    if (settings.batch_tokens or math.inf) < dataset.max_sample_length:
        raise UserError(
            f"[trainer] batch_tokens = {settings.batch_tokens}: less than one sample may have, "
            f"which is {dataset.max_sample_length}"
        )
    device = accelerator(settings)
    arguments = settings.lightning.keywords()
    if settings.minutes is not None:
        arguments |= {"max_epochs": -1, "max_steps": total or -1}
    if settings.lightning.strategy == STRATEGY:
        arguments["strategy"] = Divided()
    if not len(dataset.valid):
        arguments["limit_val_batches"] = 0
    try:
        trainer = pl.Trainer(
            accelerator=device,
            precision=precision(settings, device),
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
    if type(trainer.strategy) not in {SingleDeviceStrategy, DDPStrategy, Divided}:
        raise UserError(
            f'[trainer.lightning] strategy = "{settings.lightning.strategy}": FST cannot write its '
            f'checkpoints with it. Write "ddp", or "{STRATEGY}", which divides the weights'
        )
    return trainer


def _steps(trainer: pl.Trainer, batches: int) -> int | None:
    """Return the number of steps that the schedule spans; None if it is not known yet."""
    steps = math.ceil(batches / trainer.accumulate_grad_batches)
    limits = [trainer.max_steps] if trainer.max_steps != -1 else []
    if trainer.max_epochs is not None and trainer.max_epochs != -1:
        limits.append(trainer.max_epochs * steps)
    return min(limits, default=None)


def _steps_per_validation(trainer: pl.Trainer, batches: int) -> float:
    """Return the steps from one validation to the next, where an epoch has so many batches."""
    every, accumulate = trainer.val_check_interval, trainer.accumulate_grad_batches
    if isinstance(every, int):
        return max(1.0, every / accumulate)
    share = every if isinstance(every, float) else 1.0
    epoch = max(1, math.ceil(batches / accumulate))
    return max(1.0, epoch * share * (trainer.check_val_every_n_epoch or 1))


def _validations(trainer: pl.Trainer, batches: int, steps: int) -> int:
    """Return how many validations there are in so many steps, where an epoch has so many batches."""
    every, accumulate = trainer.val_check_interval, trainer.accumulate_grad_batches
    if not isinstance(every, int):
        every = max(1, int(batches * every)) if isinstance(every, float) else batches
    epochs, rest = divmod(steps, math.ceil(batches / accumulate))
    begun = min(rest * accumulate, batches)  # batches of an epoch that is not done
    if trainer.check_val_every_n_epoch is None:
        number, since = divmod(epochs * batches + begun, every)
        return number + bool(since)  # the one at the end
    of = trainer.check_val_every_n_epoch
    number, last = epochs // of * (batches // every), batches
    is_validated = epochs % of == 0  # the epoch that is the last
    if begun:
        is_validated, last = (epochs + 1) % of == 0, begun
        number += is_validated * (begun // every)
    return number + (not is_validated or last % every > 0)


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
    if state.skipped:
        figures["skipped_steps"] = state.skipped
    if state.best_bits_per_byte is not None:
        figures["bits_per_byte"] = state.best_bits_per_byte
    return figures
