"""The device that evaluators compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fst_core.errors import UserError

if TYPE_CHECKING:
    from fst_evaluation.settings import Device

__all__ = ["device"]


def device(name: Device) -> torch.device:
    """Return a device of torch by its name.

    Raises:
        UserError: it is not here.
    """
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    chosen: str = name
    if name == "auto":
        chosen = next(name for name, is_here in here.items() if is_here)
    if not here[chosen]:
        raise UserError(f'[[evaluate]] device = "{chosen}": torch finds none here')
    return torch.device(chosen)
