"""Devices: which of torch's are here."""

from __future__ import annotations

__all__ = ["device_counts", "fastest_device"]


def device_counts() -> dict[str, int]:
    """Return how many devices of each kind are here, the fastest kind first."""
    import torch

    return {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }


def fastest_device() -> str:
    """Return the fastest kind of device that is here."""
    return next(kind for kind, count in device_counts().items() if count)
