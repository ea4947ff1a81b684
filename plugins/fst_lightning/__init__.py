"""The trainer `lightning`: PyTorch Lightning, resumed exactly, watched in TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fst_core import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator


@hookimpl
def fst_trainers() -> Iterator[Component]:
    """Offer the trainer."""
    yield Component(
        "lightning",
        f"{__name__}.trainer:LightningTrainer",
        "AdamW under PyTorch Lightning, with exact resume, TensorBoard and generated samples.",
        settings=f"{__name__}.settings:LightningSettings",
        needs=("torch", "pytorch_lightning", "tensorboard", "rich", "safetensors"),
    )
