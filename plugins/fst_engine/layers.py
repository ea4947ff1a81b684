"""A module's layers, faster on a CPU, if its weights do not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from fst_engine.attention import attention
from fst_engine.kernels import KERNEL_DTYPES, kernel, load_kernels
from fst_engine.products import FUSED, can_pack, is_product, kind, product

if TYPE_CHECKING:
    from collections.abc import Callable

    from fst_engine.cache import SlotCache
    from fst_engine.products import Product

    Rotation = tuple[torch.Tensor, torch.Tensor]

__all__ = ["quicken"]

_GPT2: Final = "transformers.models.gpt2.modeling_gpt2.GPT2Block"
_LLAMA: Final = {
    f"transformers.models.{name.lower()}.modeling_{name.lower()}.{name}DecoderLayer"
    for name in ("Llama", "Mistral", "Qwen2", "Qwen3")
}
"""The layers of `transformers` that compute the same, but for biases, and norms of the heads."""
_SILU: Final = {
    "torch.nn.modules.activation.SiLU",
    "transformers.activations.SiLUActivation",
}


def quicken(module: torch.nn.Module, *, own_attention: bool) -> None:
    """Let a module's layers compute faster, with a copy of their weights.

    Args:
        module: is on a CPU, and not trained.
        own_attention: whether its attention is ours. If so, whole layers of the kinds that are known
            are exchanged; of others, their products.
    """
    if not can_pack():
        return
    exchanged: set[torch.nn.Module] = set()
    if own_attention and load_kernels():
        for part in module.modules():
            if forward := _faster(part):
                part.forward = forward
                exchanged.update(part.modules())
    for part in module.modules():
        if part not in exchanged and is_product(part):
            part.forward = product(part)


def _faster(layer: Any) -> Callable[..., torch.Tensor] | None:
    """Return what computes a layer's `forward`, if there is such a thing for its kind and numbers."""
    build = {_GPT2: _gpt2, **dict.fromkeys(_LLAMA, _llama)}.get(kind(layer))
    if build is None:
        return None
    dtypes = {each.dtype for each in layer.parameters()}
    return build(layer) if len(dtypes) == 1 and dtypes <= KERNEL_DTYPES.keys() else None


class _Layer:
    """A decoder layer: attention, then a part that sees one position, each of a norm and added.

    What lies between its products are kernels: for a few rows, each operation of torch takes longer to
    begin than to compute.
    """

    def __init__(
        self, attention: Any, norms: tuple[Any, Any], ask: Product, answer: Product, feed: Product
    ) -> None:
        """Take attention's queries, keys and values as one product, its output, and the other part."""
        self._attention, self._norms = attention, norms
        self._ask, self._answer, self._feed = ask, answer, feed
        self._dim: int = attention.head_dim
        self._heads: int = attention.config.num_attention_heads
        self._groups = self._heads // getattr(attention, "num_key_value_groups", 1)

    def __call__(
        self,
        states: torch.Tensor,
        mask: torch.Tensor | None,
        cache: SlotCache | None,
        rotation: Rotation | None = None,
    ) -> torch.Tensor:
        """Compute (rows, new, hidden) from what the layer before gave."""
        states = states.contiguous()
        rows, new, _ = states.shape
        states, normed = _normed(self._norms[0], states)
        asked = self._ask(normed)
        if rotation is not None:
            self._rotate(asked, rotation)
        heads = asked.view(rows, new, -1, self._dim).transpose(1, 2)
        query, key, value = torch.split(heads, [self._heads, self._groups, self._groups], dim=1)
        part = self._attention
        if cache is not None:
            key, value = cache.update(key, value, part.layer_idx)
        found, _ = attention(part, query, key, value, mask, scaling=part.scaling)
        found = self._answer(found.reshape(rows, new, -1))
        states, normed = _normed(self._norms[1], states, found)
        return states + self._feed(normed)

    def _rotate(self, asked: torch.Tensor, rotation: Rotation) -> None:
        """Turn queries and keys, in place, to their positions; some models normalise them before."""
        rows, new, width = asked.shape
        cosines, sines = (each.expand(rows, -1, -1).contiguous() for each in rotation)
        norms = [getattr(self._attention, name, None) for name in ("q_norm", "k_norm")]
        kernel("rotate", asked.dtype)(
            *(each.data_ptr() for each in (asked, cosines, sines)),
            *(None if norm is None else norm.weight.data_ptr() for norm in norms),
            *(rows * new, self._heads + self._groups, self._heads, self._dim, width),
            0.0 if norms[0] is None else norms[0].variance_epsilon,
            torch.get_num_threads(),
        )


def _normed(
    norm: Any, states: torch.Tensor, added: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the states, with what is added to them, and their norm."""
    out, width = torch.empty_like(states), states.shape[-1]
    sums = states if added is None else torch.empty_like(states)
    bias = getattr(norm, "bias", None)
    kernel("norm", states.dtype)(
        states.data_ptr(),
        None if added is None else added.data_ptr(),
        norm.weight.data_ptr(),
        None if bias is None else bias.data_ptr(),
        *(sums.data_ptr(), out.data_ptr(), states.numel() // width, width),
        norm.variance_epsilon if bias is None else norm.eps,
        torch.get_num_threads(),
    )
    return sums, out


def _gated(gates: torch.Tensor) -> torch.Tensor:
    """Return SwiGLU of (rows, new, 2 * width), the gates before what goes through them."""
    *rows, width = gates.shape
    out = gates.new_empty(*rows, width // 2)
    kernel("gate", gates.dtype)(
        *(gates.data_ptr(), out.data_ptr(), out.numel() // out.shape[-1], out.shape[-1]),
        torch.get_num_threads(),
    )
    return out


def _gpt2(block: Any) -> Callable[..., torch.Tensor] | None:
    attention, mlp = block.attn, block.mlp
    products = attention.c_attn, attention.c_proj, mlp.c_fc, mlp.c_proj
    if kind(mlp.act) not in FUSED or not all(map(is_product, products)):
        return None
    activation, variant = FUSED[kind(mlp.act)]
    up, down = product(mlp.c_fc, activation=activation, variant=variant), product(mlp.c_proj)
    layer = _Layer(
        *(attention, (block.ln_1, block.ln_2)),
        *(product(attention.c_attn), product(attention.c_proj), lambda x: down(up(x))),
    )

    def forward(
        hidden_states: torch.Tensor,
        cache: SlotCache | None = None,
        attention_mask: torch.Tensor | None = None,
        *_: Any,
        **__: Any,  # what else the layer is told, it does not need
    ) -> torch.Tensor:
        return layer(hidden_states, attention_mask, cache)

    return forward


def _llama(block: Any) -> Callable[..., torch.Tensor] | None:
    attention, mlp = block.self_attn, block.mlp
    asking = attention.q_proj, attention.k_proj, attention.v_proj
    gates = mlp.gate_proj, mlp.up_proj
    products = *asking, attention.o_proj, *gates, mlp.down_proj
    if kind(mlp.act_fn) not in _SILU or not all(map(is_product, products)):
        return None
    gate, down = product(*gates), product(mlp.down_proj)
    layer = _Layer(
        *(attention, (block.input_layernorm, block.post_attention_layernorm)),
        *(product(*asking), product(attention.o_proj), lambda x: down(_gated(gate(x)))),
    )

    def forward(
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        position_embeddings: Rotation,
        cache: SlotCache | None = None,
        **_: Any,  # what else the layer is told, it does not need
    ) -> torch.Tensor:
        return layer(hidden_states, attention_mask, cache, position_embeddings)

    return forward
