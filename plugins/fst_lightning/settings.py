"""What a pipeline may write in `[trainer]` for the trainer `lightning`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fst_core import Settings
from fst_lightning.arguments import TrainerArguments

__all__ = ["LightningSettings"]

Beta = Annotated[float, Field(ge=0, lt=1)]


class LightningSettings(Settings):
    """Settings of the trainer `lightning`."""

    batch_size: int = Field(16, ge=1)
    """Samples a batch; a step sees this times `lightning.accumulate_grad_batches`."""
    learning_rate: float = Field(3e-4, gt=0, allow_inf_nan=False)
    """AdamW's learning rate at the top of its schedule."""
    weight_decay: float = Field(0.1, ge=0, allow_inf_nan=False)
    """AdamW's weight decay, of matrices alone: not of biases, norms and embeddings."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """How slowly AdamW's means of the gradient and of its square change, each in [0, 1)."""
    num_warmup_steps: int | None = Field(None, ge=0)
    """Steps in which the learning rate rises from 0; by default a tenth of all, at most 100."""
    num_cycles: int = Field(1, ge=1)
    """How often the learning rate falls along a cosine, each time restarting at the top."""
    min_learning_rate_share: float = Field(0.0, ge=0, le=1)
    """Where each cosine ends, as a share of the learning rate."""
    log_text_samples: bool = True
    """Whether texts are generated and logged at each validation."""
    sample_prompts: tuple[str, ...] = ("",)
    """What these texts begin with, a text each; an empty one lets the model begin by itself."""
    checkpoint_every: int = Field(500, ge=1)
    """Steps from one checkpoint to the next; a validation that is the best so far writes one too."""
    checkpoints_kept: int = Field(2, ge=1)
    """How many of the last checkpoints are kept, beside the best."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto takes CUDA, then MPS, then the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What is multiplied, weights staying fp32; auto takes bf16 where the processor has it."""
    lightning: TrainerArguments = Field(default_factory=TrainerArguments)
    """Any argument of `pytorch_lightning.Trainer` that FST does not decide itself."""
