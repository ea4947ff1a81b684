"""What a module is trained to lower: the cross entropy of the next id, and what may be added to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from fst_core.dataset import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ChunkedLoss", "summed_loss", "summed_unlikelihood"]

CHUNK = 2**24
"""Logits that are computed at a time by `ChunkedLoss`: 64 MiB in fp32."""


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross entropy of each next id: (B, T, V), (B, T) int64 -> (), float32."""
    return F.cross_entropy(
        logits.flatten(0, 1).float(),
        _targets(labels).flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )


def summed_unlikelihood(
    logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the summed unlikelihood of the ids that a text has had: (B, T, V), (B, T) x 2 -> ().

    At each target, every different id before it that is not the target is a candidate c and adds
    -log(1 - p(c)): equation 4 of Welleck et al. 2019, "Neural text generation with unlikelihood
    training".
    """
    targets = _targets(labels)  # (B, T)
    same = ids[:, :, None] == ids[:, None, :]  # (B, T, T): the ids at two positions are equal
    first = ~same.tril(-1).any(-1)  # (B, T): the id was not there before
    seen = torch.ones_like(same[0]).tril()  # (T, T): what position t knows of
    candidates = seen & first[:, None, :] & (ids[:, None, :] != targets[:, :, None])
    candidates &= (targets != IGNORED)[:, :, None]
    chosen = ids[:, None, :].expand(candidates.shape)  # (B, T, T): the id of each candidate
    likely = logits.float().log_softmax(-1).gather(-1, chosen)  # log p(c)
    others = torch.log(-torch.expm1(likely.clamp(max=-1e-6)))  # log(1 - p(c)), p at most 0.999999
    return -(others * candidates).sum()


class ChunkedLoss:
    """The summed cross entropy of a module whose last layer is a plain linear one, a few ids at a time.

    The logits of a whole batch never exist: each chunk's are turned into its loss and its gradients
    at once. It computes exactly as much as without chunks.
    """

    def __init__(self, module: nn.Module, head: nn.Linear) -> None:
        self._module = module
        self._head = head
        self.vocabulary = len(head.weight)
        self.is_checked = False
        """Whether `agrees` has been asked."""

    @classmethod
    def of(cls, module: nn.Module) -> ChunkedLoss | None:
        """Return the loss of a module; None if it has no last layer that is known to be its last."""
        find: Callable[[], Any] | None = getattr(module, "get_output_embeddings", None)
        head = find() if find is not None else None
        return cls(module, head) if type(head) is nn.Linear else None

    def __call__(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss: (B, T), (B, T) int64 -> (), float32."""
        found: list[torch.Tensor] = []

        def take(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            found.append(arguments[0])
            return (arguments[0][:, :1],)  # the module's own logits are of no use

        hook = self._head.register_forward_pre_hook(take)
        try:
            self._module(input_ids=ids, use_cache=False)
        finally:
            hook.remove()
        (hidden,) = found
        hidden, targets = hidden.flatten(0, 1), _targets(labels).flatten()
        weight, bias = self._head.weight, self._head.bias
        learns = torch.is_grad_enabled()  # a Function itself never sees that it is
        loss: torch.Tensor = _Chunks.apply(hidden, weight, bias, targets, learns)  # type: ignore[no-untyped-call]  # torch's
        return loss

    @torch.no_grad()
    def agrees(self, ids: torch.Tensor) -> bool:
        """Return whether the module's logits, here of (B, T) int64, are what the last layer gives."""
        self.is_checked = True
        found: list[torch.Tensor] = []
        hook = self._head.register_forward_hook(lambda *given: found.append(given[-1].clone()))
        trains = self._module.training
        self._module.eval()  # what is drawn for dropout would be missed by the training
        try:
            logits = self._module(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()
            self._module.train(trains)
        return len(found) == 1 and found[0].shape == logits.shape and torch.equal(found[0], logits)


class _Chunks(torch.autograd.Function):
    """The loss of hidden (N, D) through weight (V, D) and bias (V,) with targets (N,)."""

    @staticmethod
    def forward(  # noqa: PLR0917  # a Function takes no keywords
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        learns: bool,
    ) -> torch.Tensor:
        # What the last layer would have been computed in; below, nothing is cast behind our back.
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        matrix = weight.to(dtype)
        total = torch.zeros((), device=hidden.device)
        wanted_of = [needs and learns for needs in ctx.needs_input_grad]
        d_hidden = torch.empty_like(hidden) if wanted_of[0] else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted_of[1] else None
        d_bias = None
        if bias is not None and wanted_of[2]:
            d_bias = torch.zeros_like(bias, dtype=torch.float32)
        size = max(1, CHUNK // len(weight))
        with torch.autocast(kind, enabled=False):
            for begin in range(0, len(hidden), size):
                rows = slice(begin, begin + size)
                part, wanted = hidden[rows].to(dtype), targets[rows]
                logits = (part @ matrix.T).float()  # (n, V)
                if bias is not None:
                    logits += bias
                counted = wanted != IGNORED
                total += F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
                if not learns:
                    continue
                slope = torch.softmax(logits, -1)
                at = torch.where(counted, wanted, 0)[:, None]
                slope.scatter_add_(1, at, torch.full_like(at, -1, dtype=slope.dtype))
                slope *= counted[:, None]
                if d_bias is not None:
                    d_bias += slope.sum(0)
                lower = slope.to(dtype)
                if d_hidden is not None:
                    d_hidden[rows] = lower @ matrix
                if d_weight is not None:
                    d_weight += lower.T @ part
        ctx.gradients = (d_hidden, d_weight, d_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> Any:
        return (*(None if g is None else g * slopes[0] for g in ctx.gradients), None, None)


def _targets(labels: torch.Tensor) -> torch.Tensor:
    """Return what each position predicts, (B, T): the next id; the last one predicts nothing."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED)
