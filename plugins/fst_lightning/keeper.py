"""The callback that keeps what a run needs to go on, and shows and logs what it does."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from fst_core.errors import FstError
from fst_lightning.checkpoints import module_tensors
from fst_lightning.display import sampled, validated
from fst_lightning.optimizer import optimizer_tensors
from fst_lightning.randomness import Randomness
from fst_lightning.signals import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from fst_core.pipeline.run import Run
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
    batches of a step that is not complete are done again by a run that goes on from there.
    """

    def __init__(
        self,
        state: State,
        randomness: Randomness,
        *,
        settings: LightningSettings,
        language: LanguageModule,
        run: Run,
        checkpoints: Checkpoints,
        record: Record,
        display: Display,
        signals: Signals,
        sample: Callable[[Sequence[str]], list[str]],
    ) -> None:
        self.state = state
        self.randomness = randomness
        self.settings = settings
        self.language = language
        self.run = run
        self.checkpoints = checkpoints
        self.record = record
        self.display = display
        self.signals = signals
        self.sample = sample
        self.due = False
        """Whether a checkpoint of `state` is to be written before the next batch."""
        self._complete = True  # no batch has been trained on since `state`
        self._buffers: dict[str, torch.Tensor] = {}  # of `state`, where a batch may change them
        self._resting = randomness  # the generators while validation may draw from them
        self._clock = _Clock(state.seconds)
        self._logged = (state.tokens, state.seconds)

    def on_train_start(self, trainer: pl.Trainer, language: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's hook
        """Begin where the last completed step ended."""
        self.signals.install()  # Lightning has just taken SIGTERM
        self.randomness.restore()
        self._clock.start()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop here if a signal came, and write a checkpoint if one is due."""
        self.signals.check()
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
        figures = self.language.figures
        self.state = state = replace(
            self.state,
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            batch=batch_index + 1,
            validated=False,
            loss=figures["loss"],
            tokens=self.state.tokens + self.language.targets,
            seconds=self._clock.seconds,
        )
        self.randomness = Randomness.capture()
        if trainer.accumulate_grad_batches > 1:
            buffers = self.language.module.named_buffers()
            self._buffers = {name: buffer.clone() for name, buffer in buffers}
        self.due |= state.step % self.settings.checkpoint_every == 0
        if state.step % (self.settings.lightning.log_every_n_steps or 1) == 0:
            tokens, seconds = self._logged
            speed = (state.tokens - tokens) / max(1e-9, state.seconds - seconds)
            self._logged = (state.tokens, state.seconds)
            self._log({**figures, "tokens_per_second": speed})
            self.display.step(state, speed)

    def on_validation_start(self, trainer: pl.Trainer, language: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's hook
        """Keep validation and sampling from changing what training draws."""
        self._clock.stop()
        self._resting = Randomness.capture()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop here if a signal came."""
        self.signals.check()

    def on_validation_end(self, trainer: pl.Trainer, language: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's hook
        """Take note of a validation, and see what the model writes; before the first step, do neither.

        Raises:
            FstError: the loss is not finite.
        """
        if self.state.step and not trainer.sanity_checking:
            self._validated(self.language.valid_loss)
            self._write_samples()
            # In the midst of a step's batches, a run that goes on from the last step does them again.
            self.state = replace(self.state, validated=self._complete)
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

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint of the last completed step, unless there is one."""
        self.due = False
        if self.state.step in {0, self.checkpoints.last}:
            return
        self._clock.stop()
        module = self.language.module
        self.checkpoints.save(
            self.state,
            module_tensors(module) | self._buffers,
            optimizer_tensors(trainer.optimizers[0], module),
            self.randomness,
        )
        self._clock.start()

    def _validated(self, loss: float) -> None:
        step = self.state.step
        if not math.isfinite(loss):
            raise FstError(f"step {step}: the validation loss is {loss:g}. Lower learning_rate")
        self.state = replace(self.state, valid_loss=loss)
        if self.state.best_loss is None or loss < self.state.best_loss:
            self.state = replace(self.state, best_step=step, best_loss=loss)
            self.due = True
        perplexity = math.exp(min(loss, 700.0))  # the largest that a float holds
        self._log({"valid_loss": loss, "perplexity": perplexity})
        self.display.say(validated(self.state, perplexity))

    def _write_samples(self) -> None:
        prompts = self.settings.sample_prompts
        if not (self.settings.log_text_samples and prompts):
            return
        texts = self.sample(prompts)
        self.record.samples(self.state.step, prompts, texts)
        self.display.say(sampled(prompts[-1], texts[-1]))

    def _log(self, figures: dict[str, float]) -> None:
        self.record.figures(self.state.step, figures)
        self.run.metrics(self.state.step, figures)


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
