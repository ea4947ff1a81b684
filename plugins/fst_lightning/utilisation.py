"""Model FLOPs utilisation (MFU): the share of what a device can do that training makes use of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from fst_lightning.settings import LightningSettings

__all__ = ["flops_per_token", "peak_flops"]

_PEAKS = {
    # bf16 products without sparsity, and fp32 ones, in 10^12 a second; the longest name that fits counts
    "B200": (2250, 75), "B100": (1750, 60), "H200": (989, 67), "H100": (989, 67),
    "H100 PCIe": (756, 51), "A100": (312, 19.5), "A40": (150, 37), "A30": (165, 10.3),
    "A10": (125, 31), "L40S": (362, 91.6), "L40": (181, 90.5), "L4": (121, 30),
    "RTX 4090": (165, 82.6), "RTX 3090": (71, 35.6),
}  # fmt: skip
"""From the vendor's data sheets."""


def peak_flops(settings: LightningSettings, device: str, precision: str) -> float | None:
    """Return the operations a second that the device can do at most; None if that is not known."""
    if settings.peak_tflops is not None:
        return settings.peak_tflops * 1e12
    if device != "cuda":
        return None
    words = torch.cuda.get_device_name()
    known = [name for name in _PEAKS if f" {name}".lower() in f" {words}".lower().replace("-", " ")]
    if not known:
        return None
    bf16, fp32 = _PEAKS[max(known, key=len)]
    return (bf16 if precision.startswith("bf16") else fp32) * 1e12


def flops_per_token(module: nn.Module, length: int) -> float:
    """Return what learning from an id takes, in a text of some length.

    6 operations a parameter that is multiplied with, and 12 for each layer, position and channel of
    attention (Chowdhery et al. 2022, appendix B); a table of embeddings counts once, as last layer.
    """
    tables = {
        id(m.weight): m.weight.numel()
        for m in module.modules()
        if isinstance(m, torch.nn.Embedding)
    }
    multiplied = {id(p): p.numel() for p in module.parameters() if id(p) not in tables}
    find = getattr(module, "get_output_embeddings", None)
    head = find() if find is not None else None
    if isinstance(head, torch.nn.Linear):
        multiplied[id(head.weight)] = head.weight.numel()
    config = getattr(module, "config", None)
    layers = getattr(config, "num_hidden_layers", None) or 0
    width = getattr(config, "hidden_size", None) or 0
    return 6.0 * sum(multiplied.values()) + 12.0 * layers * width * length
