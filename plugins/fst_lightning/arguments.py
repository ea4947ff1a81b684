"""What a pipeline may write in `[trainer.lightning]`: the arguments of `pytorch_lightning.Trainer`.

Their names and types are those of the installed signature, as far as TOML can write them; a test
holds them equal, so that checking a pipeline imports nothing.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from fst_core import Settings

__all__ = ["DECIDED", "EARLIER", "EPOCHS", "TrainerArguments"]

EPOCHS = 10
"""The epochs to train if neither max_epochs nor max_steps says when to end."""

_ALWAYS = "nothing: FST always does it"

DECIDED = {
    "accelerator": "device in [trainer]",
    "callbacks": "nothing: plugins watch a run through the hook fst_metrics",
    "default_root_dir": "root in [run]",
    "enable_autolog_hparams": "nothing: the run keeps its pipeline.toml",
    "enable_checkpointing": "checkpoint_every in [trainer]",
    "enable_progress_bar": "nothing: a terminal gets a bar, anything else gets lines",
    "logger": "nothing: the run's tensorboard/ has all figures",
    "model_registry": "nothing: a run resumes from its own checkpoints",
    "plugins": "precision in [trainer]",
    "precision": "precision in [trainer]",
}
"""Arguments of today's Lightning that FST decides itself: what to write instead."""

EARLIER = {
    "amp_backend": "precision in [trainer]",
    "amp_level": "precision in [trainer]",
    "auto_lr_find": "learning_rate in [trainer]",
    "auto_scale_batch_size": "batch_size in [trainer]",
    "auto_select_gpus": 'device = "cuda" in [trainer]',
    "checkpoint_callback": "checkpoint_every in [trainer]",
    "default_save_path": "root in [run]",
    "distributed_backend": "strategy",
    "early_stop_callback": "patience in [trainer]",
    "flush_logs_every_n_steps": _ALWAYS,
    "gpus": 'device = "cuda" in [trainer]',
    "gradient_clip": "gradient_clip_val",
    "ipus": "device in [trainer]",
    "log_gpu_memory": 'profiler = "simple"',
    "log_save_interval": _ALWAYS,
    "max_nb_epochs": "max_epochs",
    "min_nb_epochs": "min_epochs",
    "move_metrics_to_cpu": _ALWAYS,
    "multiple_trainloader_mode": "nothing: there is one dataset",
    "nb_gpu_nodes": "num_nodes",
    "nb_sanity_val_steps": "num_sanity_val_steps",
    "num_processes": "devices",
    "overfit_pct": "overfit_batches",
    "prepare_data_per_node": "nothing: `fst prepare` does it",
    "print_nan_grads": _ALWAYS,
    "process_position": "nothing: there is one progress bar",
    "progress_bar_refresh_rate": "nothing: a terminal gets a bar, anything else gets lines",
    "reload_dataloaders_every_epoch": "reload_dataloaders_every_n_epochs",
    "replace_sampler_ddp": "use_distributed_sampler",
    "resume_from_checkpoint": "nothing: an unfinished run is continued",
    "row_log_interval": "log_every_n_steps",
    "show_progress_bar": "nothing: a terminal gets a bar, anything else gets lines",
    "stochastic_weight_avg": "nothing: FST has no weight averaging",
    "terminate_on_nan": _ALWAYS,
    "test_percent_check": "limit_test_batches",
    "tpu_cores": "device in [trainer]",
    "track_grad_norm": "nothing: FST always logs the gradient's norm",
    "train_percent_check": "limit_train_batches",
    "truncated_bptt_steps": "max_sample_length in [dataset]",
    "use_amp": "precision in [trainer]",
    "val_percent_check": "limit_val_batches",
    "weights_save_path": "root in [run]",
    "weights_summary": "enable_model_summary",
}
"""Arguments of earlier Lightning: what to write today."""


class TrainerArguments(Settings):
    """Arguments of `pytorch_lightning.Trainer`."""

    strategy: str = "auto"
    """How several devices share the work: `ddp`, by default too; with `fsdp2` also the weights."""
    devices: list[int] | str | int = 1
    """How many devices of this machine to use, or which; several share each batch."""
    num_nodes: int = 1
    """How many machines take part, each with as many devices."""
    fast_dev_run: int | bool = False
    """Run this many batches of everything, to see that it works."""
    max_epochs: int | None = Field(None, ge=-1)
    """Stop after this many epochs, -1 for no limit; by default 10, unless max_steps or minutes is given."""
    min_epochs: int | None = None
    """Train at least this many epochs."""
    max_steps: int = Field(-1, ge=-1)
    """Stop after this many steps of the optimizer; -1 for no limit."""
    min_steps: int | None = None
    """Train at least this many steps."""
    max_time: str | dict[str, int] | None = None
    """Stop after this time, such as "00:12:00:00" (days first), counted from each start."""
    limit_train_batches: int | float | None = None
    """Use this many training batches an epoch, or this share of them."""
    limit_val_batches: int | float | None = None
    """Use this many batches for a validation, or this share of them; 0 validates nothing."""
    limit_test_batches: int | float | None = None
    """Has no effect: FST trains and validates."""
    limit_predict_batches: int | float | None = None
    """Has no effect: FST trains and validates."""
    overfit_batches: int | float = 0.0
    """Train on this many batches over and over, or on this share of them."""
    val_check_interval: int | float | str | dict[str, int] | None = None
    """Validate after this many batches, or this share of an epoch; by default after each epoch."""
    check_val_every_n_epoch: int | None = Field(None, ge=1)
    """Validate in each n-th epoch alone, counting batches within it; else they count across epochs."""
    num_sanity_val_steps: int | None = 0
    """Validate this many batches before training, to see that it works."""
    log_every_n_steps: int | None = Field(1, ge=1)
    """Log figures each n-th step."""
    enable_model_summary: bool | None = False
    """Print the module's layers."""
    accumulate_grad_batches: int = Field(1, ge=1)
    """How many batches make a step of the optimizer."""
    gradient_clip_val: int | float | None = Field(1.0, ge=0)
    """Scale the gradient down to this norm where it is longer; 0 leaves it."""
    gradient_clip_algorithm: str | None = None
    """`norm`, or `value` to clip each number of the gradient."""
    deterministic: bool | Literal["warn"] | None = None
    """Let torch use deterministic algorithms alone."""
    benchmark: bool | None = None
    """Let cuDNN find its fastest algorithms."""
    inference_mode: bool = True
    """Whether a validation after the last step runs in torch's inference mode."""
    use_distributed_sampler: bool = True
    """Has no effect: FST makes its own batches."""
    profiler: str | None = None
    """`simple` or `advanced`: report at the end where the time went."""
    detect_anomaly: bool = False
    """Find the operation whose gradient is not finite, slowly."""
    barebones: bool = False
    """Leave out all of Lightning's own bookkeeping."""
    sync_batchnorm: bool = False
    """Normalise batches across devices."""
    reload_dataloaders_every_n_epochs: int = 0
    """Make the batches' source anew each n-th epoch."""

    @model_validator(mode="wrap")
    @classmethod
    def _told_what_to_write(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Say what to write instead of an argument that FST decides or Lightning no longer has."""
        try:
            return handler(data)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                error.title, [_instead(detail) for detail in error.errors()], input_type="json"
            ) from None

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_epochs == -1 and self.max_steps == -1:
            raise ValueError(
                "max_epochs or max_steps must have a limit: the learning rate's schedule ends there"
            )
        return self

    @model_validator(mode="after")
    def _validates_sometimes(self) -> Self:
        every = self.val_check_interval
        if isinstance(every, int | float) and every <= 0:
            raise ValueError(
                f"val_check_interval = {every}: write more than 0; limit_val_batches = 0 validates nothing"
            )
        return self

    def keywords(self) -> dict[str, Any]:
        """Return the arguments as Lightning takes them."""
        arguments = self.model_dump()
        if self.max_epochs is None and self.max_steps == -1:
            arguments["max_epochs"] = EPOCHS
        if self.check_val_every_n_epoch is None and not isinstance(self.val_check_interval, int):
            arguments["check_val_every_n_epoch"] = 1  # Lightning counts batches alone across epochs
        return arguments


def _instead(detail: Any) -> InitErrorDetails:
    kind: str | PydanticCustomError = detail["type"]
    name = str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden" and name in EARLIER:
        kind = _refusal(f"Lightning no longer has this argument. Write {EARLIER[name]}")
    elif kind == "extra_forbidden" and name in DECIDED:
        kind = _refusal(f"FST decides this. Write {DECIDED[name]}")
    return InitErrorDetails(
        type=kind, loc=detail["loc"], input=detail["input"], ctx=detail.get("ctx", {})
    )


def _refusal(sentence: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", "{sentence}", {"sentence": sentence})
