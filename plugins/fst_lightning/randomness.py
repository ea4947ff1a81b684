"""The state of every generator that training may draw from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Randomness", "seed_everything", "seed_of"]


def seed_everything(seed: int) -> None:
    """Seed torch on every device, and the global generators of numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # a module may draw from the global generator
    random.seed(seed)


def seed_of(*numbers: int) -> int:
    """Return a seed that is a function of some numbers, such as a run's seed, a step and a process."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True, slots=True)
class Randomness:
    """Where the global generators of torch, numpy and Python stand."""

    tensors: Mapping[str, torch.Tensor]
    """uint8 states of torch: `cpu`, and `cuda.<n>` or `mps` where they are used."""
    numbers: Mapping[str, Any]
    """States of numpy and Python, as JSON has them."""

    @classmethod
    def capture(cls) -> Self:
        """Return where the generators stand."""
        tensors = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states = enumerate(torch.cuda.get_rng_state_all())
            tensors |= {f"cuda.{index}": state for index, state in states}
        if torch.backends.mps.is_available():
            tensors["mps"] = torch.mps.get_rng_state()
        name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  # see seed_everything
        version, internal, gauss = random.getstate()
        numbers = {
            "numpy": [name, np.asarray(keys).tolist(), *rest],
            "python": [version, list(internal), gauss],
        }
        return cls(tensors, numbers)

    def restore(self) -> None:
        """Put the generators back there; those of devices that are not here are left out."""
        torch.set_rng_state(self.tensors["cpu"])
        if torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                if (state := self.tensors.get(f"cuda.{index}")) is not None:
                    torch.cuda.set_rng_state(state, index)
        if torch.backends.mps.is_available() and "mps" in self.tensors:
            torch.mps.set_rng_state(self.tensors["mps"])
        name, keys, *rest = self.numbers["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002  # see seed_everything
        version, internal, gauss = self.numbers["python"]
        random.setstate((version, tuple(internal), gauss))
