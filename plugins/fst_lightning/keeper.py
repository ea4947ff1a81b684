"""The callback that keeps what a run needs to go on, and shows and logs what it does."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

from fst_core.errors import FstError
from fst_lightning.checkpoints import module_tensors
from fst_lightning.display import Pace, sampled, validated
from fst_lightning.division import gathered
from fst_lightning.optimizer import optimizer_tensors
from fst_lightning.randomness import Randomness, seed_everything, seed_of
from fst_lightning.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fst_core.pipeline.run import Run
    from fst_lightning.batches import TrainingBatches
    from fst_lightning.budget import Budget
    from fst_lightning.checkpoints import Checkpoints, State
    from fst_lightning.display import Display
    from fst_lightning.language_module import LanguageModule
    from fst_lightning.record import Record
    from fst_lightning.settings import LightningSettings
    from fst_lightning.signals import Signals

__all__ = ["Keeper"]


class Keeper(pl.Callback):
    """Follows training step by step.

    `state` and `randomness` are always those of the last completed step, whatever has begun since:
    batches of a step that is not complete are done again by a run that goes on from there. Where
    several processes train, the first alone writes and shows; all know the same state.
    """

    def __init__(
        self,
        state: State,
        randomness: Randomness,
        *,
        settings: LightningSettings,
        language: LanguageModule,
        batches: TrainingBatches,
        run: Run,
        checkpoints: Checkpoints,
        record: Record | None,
        display: Display,
        signals: Signals,
        sample: Callable[[Sequence[str]], list[str]],
        budget: Budget | None,
        fixed: Callable[[int, int], None],
        valid_bytes: int,
        flops: tuple[float, float] | None,
    ) -> None:
        self.state = state
        self.randomness = randomness
        self.settings = settings
        self.language = language
        self.batches = batches
        self.run = run
        self.checkpoints = checkpoints
        self.record = record
        self.display = display
        self.validations = Pace(display)
        self.signals = signals
        self.sample = sample
        self.budget = budget
        self.fixed = fixed
        """Takes note of the number of steps that `budget` gives, and of the step after which it does."""
        self.valid_bytes = valid_bytes
        """UTF-8 bytes of a whole validation; 0: they are not known."""
        self.flops = flops
        """What learning from an id takes, and what the device can do a second; None: not known."""
        self.due = False
        """Whether a checkpoint of `state` is to be written before the next batch."""
        self._complete = True  # no batch has been trained on since `state`
        self._buffers: dict[str, torch.Tensor] = {}  # of `state`, where a batch may change them
        self._resting = randomness  # the generators while validation may draw from them
        self._began = state.seconds
        self._clock = _Clock(state.seconds)
        self._elapsed = _Clock(state.elapsed)
        self._validation_began = 0.0
        self._logged = _Reading(state.tokens, state.seconds)

    def on_train_start(self, trainer: pl.Trainer, language: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's hook
        """Begin where the last completed step ended."""
        self.signals.install()  # Lightning has just taken SIGTERM
        if self.batches.rank:
            self._reseed()
        else:
            self.randomness.restore()
        self._remember()
        self.language.pieces = self.state.pieces
        self.language.skips = self.state.skips
        self.language.rewind = self.rewind
        self.language.tell = self.display.say
        trainer.should_stop |= self._is_over()
        self._clock.start()
        self._elapsed.start()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop here if a signal came, and write a checkpoint if one is due."""
        self._check(trainer)
        self.checkpoints.check()
        if self.due:
            self.save(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        language: pl.LightningModule,  # noqa: ARG002  # Lightning's hook
        outputs: Any,  # noqa: ARG002  # Lightning's hook
        batch: Any,  # noqa: ARG002  # Lightning's hook
        batch_index: int,
    ) -> None:
        """Take note of a step, if the batch completed one."""
        self.language.stepping = False
        self._complete = trainer.global_step > self.state.step
        if not self._complete:
            return
        figures, skips = self.language.figures, self.language.skips
        if skips:
            figures = {name: value for name, value in figures.items() if name == "learning_rate"}
            figures["skipped_steps"] = self.state.skipped + 1
            self._restore_buffers()  # what is not finite has gone through them
        self.state = state = replace(
            self.state,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            batch=batch_index + 1,
            validated=False,
            loss=figures.get("loss", self.state.loss),
            tokens=self.state.tokens + self.language.targets,
            seconds=self._clock.seconds,
            elapsed=self._elapsed.seconds,
            pieces=self.language.pieces,
            skips=skips,
            skipped=self.state.skipped + bool(skips),
        )
        if self.batches.rank:
            self._reseed()
        self._remember()
        self._fix_total(trainer)
        self.due |= state.step % self.settings.checkpoint_every == 0
        if skips or state.step % (self.settings.lightning.log_every_n_steps or 1) == 0:
            self._log_step(figures)

    def on_validation_start(self, trainer: pl.Trainer, language: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's hook
        """Keep validation and sampling from changing what training draws."""
        self._clock.stop()
        self._validation_began = self._elapsed.seconds
        self._resting = Randomness.capture()

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop here if a signal came."""
        self._check(trainer)

    def on_validation_end(self, trainer: pl.Trainer, language: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's hook
        """Take note of a validation, and see what the model writes; before the first step, do neither.

        Raises:
            FstError: the loss is not finite.
        """
        if self.state.step and not trainer.sanity_checking:
            self.validations.say([self._validated(trainer), *self._write_samples()])
            # In the midst of a step's batches, a run that goes on from the last step does them again.
            elapsed = self._elapsed.seconds
            self.state = replace(self.state, validated=self._complete, elapsed=elapsed)
            if self.budget is not None:
                self.budget.validated(elapsed - self._validation_began)
            trainer.should_stop |= self._is_over()
        self._resting.restore()
        self._clock.start()

    def on_exception(
        self,
        trainer: pl.Trainer,
        language: pl.LightningModule,  # noqa: ARG002  # Lightning's hook
        error: BaseException,
    ) -> None:
        """Write a checkpoint of the last completed step, if a person or the system stops training."""
        asked = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        hurried = isinstance(error, Interrupted) and error.at_once
        if asked and not hurried and not self.language.stepping:
            self.save(trainer)

    def rewind(self) -> None:
        """Put generators and buffers back to where the last completed step left them."""
        self.randomness.restore()
        self._restore_buffers()

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint of the last completed step, unless there is one."""
        self.due = False
        if self.state.step in {0, self.checkpoints.last}:
            return
        self._clock.stop()
        module = self.language.module
        tensors = module_tensors(module) | self._buffers
        state = optimizer_tensors(trainer.optimizers[0], module)
        if self.language.is_divided:
            keep = self.record is not None
            tensors, state = gathered(tensors, keep=keep), gathered(state, keep=keep)
        if self.record is None:  # the first process writes it
            self.checkpoints.last = self.state.step
        else:
            self.record.flush()  # a run that goes on from here does not write it again
            self.checkpoints.save(self.state, tensors, state, self.randomness)
        self._clock.start()

    def tell_interrupted(self) -> None:
        """Say what a person who stopped training can go on from."""
        self.validations.finish()
        step = self.checkpoints.last
        if step:
            said = f"after step {step}; the same command goes on from there"
        else:
            said = "before the first checkpoint; the same command begins anew"
        self.display.say(f"interrupted {said}")

    def summary(self) -> str:
        """Return a line about how well the time was used."""
        seconds = max(1e-9, self.state.seconds - self._began)
        padding = 1 - self.language.tokens / max(1, self.language.size)
        mfu = "n/a"
        if self.flops is not None and self.state.seconds:
            share = self.state.tokens / self.state.seconds * self.flops[0] / self.flops[1]
            mfu = f"{share:.1%}"
        skipped = f", {self.state.skipped} of them skipped" if self.state.skipped else ""
        return (
            f"trained {self.state.step} steps{skipped}: "
            f"{min(1, self.batches.waited / seconds):.1%} of the time waiting for data, "
            f"{padding:.1%} padding, MFU {mfu}"
        )

    def _remember(self) -> None:
        self.randomness = Randomness.capture()
        buffers = self.language.module.named_buffers()
        self._buffers = {name: buffer.clone() for name, buffer in buffers}

    def _restore_buffers(self) -> None:
        for name, buffer in self.language.module.named_buffers():
            buffer.copy_(self._buffers[name])

    def _reseed(self) -> None:
        """Draw anew, by a function of the step: nothing of this process has to be kept."""
        seed_everything(seed_of(self.run.seed, self.state.step, self.batches.rank))

    def _check(self, trainer: pl.Trainer) -> None:
        """Stop if a signal came, to any of the processes.

        Raises:
            Interrupted: one has.
        """
        if trainer.world_size > 1:
            mine = torch.tensor(float(self.signals.received or 0), device=self.language.device)
            if number := int(trainer.strategy.reduce(mine, reduce_op="max").item()):
                self.signals.received = number
        self.signals.check()

    def _is_over(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.state.worse >= patience

    def _fix_total(self, trainer: pl.Trainer) -> None:
        if self.budget is None:
            return
        state, total = self.state, None
        if not self.batches.rank:
            total = self.budget.total(state.step, state.elapsed, state.tokens)
        if trainer.world_size > 1:
            mine = torch.tensor(total or 0, device=self.language.device)
            total = int(trainer.strategy.reduce(mine, reduce_op="max").item()) or None
        if total is not None:
            self.state = replace(state, total=total)
            self.fixed(state.step, total)

    def _log_step(self, figures: dict[str, float]) -> None:
        state = self.state
        seen = _Reading(
            state.tokens,
            state.seconds,
            self.batches.waited,
            self.language.tokens,
            self.language.size,
        )
        since, self._logged = seen.since(self._logged), seen
        speed = since.targets / max(1e-9, since.seconds)
        figures = {
            **figures,
            "tokens_per_second": speed,
            "data_wait_share": min(1.0, since.waited / max(1e-9, since.seconds)),
            "padding_share": 1 - since.tokens / max(1, since.size),
        }
        if self.flops is not None:
            figures["mfu"] = speed * self.flops[0] / self.flops[1]
        self._log(figures)
        self.display.step(state, speed)

    def _validated(self, trainer: pl.Trainer) -> str:
        """Take note of a validation, and return a line about it."""
        step, loss = self.state.step, self.language.valid_loss
        if not math.isfinite(loss):
            raise FstError(f"step {step}: the validation loss is {loss:g}. Lower learning_rate")
        figures = {
            "valid_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
        }  # e**710 is too large
        bits = None
        whole = isinstance(trainer.limit_val_batches, float) and trainer.limit_val_batches == 1
        if self.valid_bytes and whole:
            bits = self.language.valid_sum / math.log(2) / self.valid_bytes
            figures["bits_per_byte"] = bits
        self.state = replace(self.state, valid_loss=loss, worse=self.state.worse + 1)
        if self.state.best_loss is None or loss < self.state.best_loss:
            self.state = replace(
                self.state, best_step=step, best_loss=loss, best_bits_per_byte=bits, worse=0
            )
            self.due = True
        self._log(figures)
        return validated(self.state, figures)

    def _write_samples(self) -> list[str]:
        """Let the model write, and return a line about each text."""
        prompts = self.settings.sample_prompts
        if not (self.settings.log_text_samples and prompts):
            return []
        self.language.gather()
        if self.record is None:
            return []
        texts = self.sample(prompts)
        self.record.samples(self.state.step, prompts, texts)
        return [sampled(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]

    def _log(self, figures: dict[str, float]) -> None:
        if self.record is not None:
            self.record.figures(self.state.step, figures)
            self.run.metrics(self.state.step, figures)


class _Reading:
    """What has been counted since training began."""

    def __init__(
        self, targets: int, seconds: float, waited: float = 0.0, tokens: int = 0, size: int = 0
    ) -> None:
        self.targets, self.seconds = targets, seconds
        self.waited, self.tokens, self.size = waited, tokens, size

    def since(self, other: _Reading) -> _Reading:
        return _Reading(
            self.targets - other.targets,
            self.seconds - other.seconds,
            self.waited - other.waited,
            self.tokens - other.tokens,
            self.size - other.size,
        )


class _Clock:
    """Adds up the seconds between `start` and `stop`."""

    def __init__(self, seconds: float) -> None:
        self._before = seconds
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._before + running

    def start(self) -> None:
        self.stop()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._before = self.seconds
        self._started = None
