"""What a pipeline may write in `[trainer]` for the trainer `lightning`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fst_core import Settings
from fst_lightning.arguments import TrainerArguments

__all__ = ["LightningSettings"]

Share = Annotated[float, Field(ge=0, lt=1)]


class LightningSettings(Settings):
    """Settings of the trainer `lightning`."""

    batch_size: int = Field(16, ge=1)
    """Samples a batch on average, of all processes; a step has `lightning.accumulate_grad_batches` batches."""
    batch_tokens: int | None = Field(None, ge=2)
    """Ids a batch, padding included, in place of batch_size: as many samples as fit."""
    minutes: float | None = Field(None, gt=0)
    """How long to train, in place of max_epochs and max_steps; the first steps tell how many that are."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations in a row that were not the best; by default never."""
    learning_rate: float | None = Field(None, gt=0)
    """AdamW's learning rate at the top of its schedule; by default by the number of parameters."""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW's weight decay, of matrices alone: not of biases, norms and embeddings."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """How slowly AdamW's means of the gradient and of its square change, each in [0, 1)."""
    num_warmup_steps: int | None = Field(None, ge=0)
    """Steps in which the learning rate rises from 0; by default 2 / (1 - betas.1), at most a tenth of all."""
    num_cycles: int = Field(1, ge=1)
    """How often the learning rate falls along a cosine, each time restarting at the top."""
    min_learning_rate_share: float = Field(0.0, ge=0, le=1)
    """Where each cosine ends, as a share of the learning rate."""
    dropout: Share | Literal["auto", "model"] = "auto"
    """A number; `model` keeps the model's; `auto` too, but has none where text is seen 4 times at most."""
    on_nan: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: end training, or skip the step, 3 in a row at most."""
    unlikelihood_alpha: float = Field(0.0, ge=0)
    """How much it counts that ids which a text has had already are unlikely (Welleck et al. 2019)."""
    chunked_loss: bool | Literal["auto"] = "auto"
    """Whether a batch's logits are computed a few at a time; auto does it where they exceed 256 MiB."""
    gradient_checkpointing: bool = False
    """Compute a layer's inner values anew instead of keeping them: less memory, a third more time."""
    log_text_samples: bool = True
    """Whether texts are generated and logged at each validation."""
    sample_prompts: tuple[str, ...] = ("",)
    """What they go on from, a text each ("": nothing); in conversations, what a user says."""
    checkpoint_every: int = Field(500, ge=1)
    """Steps from one checkpoint to the next; a validation that is the best so far writes one too."""
    checkpoints_kept: int = Field(2, ge=1)
    """How many of the last checkpoints are kept, beside the best."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes CUDA, then MPS, then the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What is multiplied, weights staying fp32; auto takes bf16 where the processor has it."""
    peak_tflops: float | None = Field(None, gt=0)
    """What the device can do at most, in 10^12 operations a second, for MFU; by default by its name."""
    lightning: TrainerArguments = Field(default_factory=TrainerArguments)
    """Any argument of `pytorch_lightning.Trainer` that FST does not decide itself."""

    @model_validator(mode="after")
    def _ends_once(self) -> Self:
        given = [n for n in ("max_epochs", "max_steps") if n in self.lightning.model_fields_set]
        if self.minutes is not None and given:
            raise ValueError(
                f"minutes and lightning.{given[0]} both say when to end: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _whole_logits(self) -> Self:
        if self.chunked_loss is True and self.unlikelihood_alpha:
            raise ValueError("unlikelihood_alpha needs all logits: leave out chunked_loss")
        return self
