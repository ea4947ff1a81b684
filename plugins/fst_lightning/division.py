"""Weights that are divided among the processes, each of which keeps and trains its share of every one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from fst_core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["STRATEGY", "Divided", "check_divisible", "divide", "entire", "gathered", "shared_like"]

STRATEGY = "fsdp2"
"""What a pipeline writes for it."""


class Divided(ModelParallelStrategy):
    """Lightning's strategy for modules that divide themselves, over all processes alike.

    Zhao et al. 2023, "PyTorch FSDP: experiences on scaling fully sharded data parallel".
    """

    def setup_environment(self) -> None:
        """Let all devices of all machines have a share."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()


def divide(module: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a module's parameters among the processes of a mesh, in place.

    A layer's are whole while it computes: those of lists of modules, as blocks of transformers are,
    one after another, and the rest all the time.
    """
    for layers in [each for each in module.modules() if isinstance(each, nn.ModuleList)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def check_divisible(module: nn.Module) -> None:
    """Check that nothing of a module hangs on its parameters, since divided ones are others.

    Raises:
        UserError: some rows of a parameter train alone.
    """
    if any(getattr(parameter, "no_weight_decay", False) for parameter in module.parameters()):
        raise UserError(
            f'[trainer.lightning] strategy = "{STRATEGY}": this model trains some rows of its '
            'embeddings alone, which have to be whole. Write "ddp"'
        )


def entire(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whole; all processes that have a share of it must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, torch.Tensor], *, keep: bool) -> dict[str, torch.Tensor]:
    """Return tensors whole, on the CPU, one after another; none where they are not kept.

    All processes must ask for the same ones in the same order.
    """
    found = {}
    for name, tensor in tensors.items():
        whole = entire(tensor.detach())
        if keep:
            found[name] = whole.cpu()
    return found


def shared_like(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor divided as a parameter of its shape is; any other stays whole."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
