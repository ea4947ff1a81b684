"""The device that evaluators compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fst_core.devices import device_counts, fastest_device
from fst_core.errors import UserError

if TYPE_CHECKING:
    from fst_evaluation.settings import Device

__all__ = ["device"]


def device(name: Device) -> torch.device:
    """Return a device of torch by its name.

    Raises:
        UserError: it is not here.
    """
    chosen = fastest_device() if name == "auto" else name
    if not device_counts()[chosen]:
        raise UserError(f'[[evaluate]] device = "{chosen}": torch finds none here')
    return torch.device(chosen)
