"""On which device, and in which numbers, a saved model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch

from fst_core.devices import device_counts, fastest_device
from fst_core.errors import UserError

__all__ = ["choose_device", "choose_dtype", "cpu_flags"]

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CPUINFO: Final = Path("/proc/cpuinfo")
_NATIVE_BF16: Final = {"avx512_bf16", "amx_bf16", "bf16"}
"""Flags of processors that multiply bf16; the last one is that of ARM."""


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else MPS, else the CPU.

    Raises:
        UserError: this machine, or this torch, has no such device.
    """
    if name == "auto":
        return torch.device(fastest_device())
    available = device_counts()
    device = torch.device(name)
    if (device.index or 0) >= available[device.type]:
        known = ", ".join(kind for kind, count in available.items() if count)
        raise UserError(f"device = {name!r}: there is no such device here. There is: {known}")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of that name; `auto` is bf16 where the device multiplies it natively."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and bool(cpu_flags() & _NATIVE_BF16)
    return torch.bfloat16 if native else torch.float32


def cpu_flags() -> set[str]:
    """Return the processor's flags, as Linux tells them; elsewhere none."""
    try:
        lines = _CPUINFO.read_text("utf-8").splitlines()
    except OSError:
        return set()
    flags = (line.partition(":")[2] for line in lines if line.startswith(("flags", "Features")))
    return set(next(flags, "").split())
