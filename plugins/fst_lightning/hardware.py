"""Where to train, and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from fst_core.devices import device_counts, fastest_device
from fst_core.errors import UserError

if TYPE_CHECKING:
    from fst_lightning.settings import LightningSettings

    Precision = Literal["32-true", "bf16-mixed"]

__all__ = ["accelerator", "precision"]


def accelerator(settings: LightningSettings) -> str:
    """Return `cuda`, `mps` or `cpu`.

    Raises:
        UserError: the device that the settings name is not here.
    """
    if settings.device == "auto":
        return fastest_device()
    found, wanted = device_counts()[settings.device], settings.lightning.devices
    if not found:
        raise UserError(
            f'[trainer] device = "{settings.device}": torch finds none here. "auto" takes what there is'
        )
    if settings.device != "cpu" and isinstance(wanted, int) and wanted > found:
        raise UserError(f"[trainer] lightning.devices = {wanted}: torch finds {found} here")
    return settings.device


def precision(settings: LightningSettings, device: str) -> Precision:
    """Return Lightning's name of the precision: of products alone, since weights stay fp32."""
    if settings.precision == "auto":
        return "bf16-mixed" if _multiplies_bf16(device) else "32-true"
    return "bf16-mixed" if settings.precision == "bf16" else "32-true"


def _multiplies_bf16(device: str) -> bool:
    """Return whether the processor itself does, so that it is no slower than fp32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities() if device == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
