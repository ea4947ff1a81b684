"""A module's layers, faster on a CPU, if its weights do not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from fst_engine.kernels import FEW, KERNEL_DTYPES, WIDEST, kernel, load_kernels
from fst_engine.pages import PAGE, PageShape
from fst_engine.products import FUSED, Product, can_pack, is_product, kind
from fst_engine.stack import Numbers, Stack

if TYPE_CHECKING:
    from fst_engine.pages import PagedCache

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


def quicken(module: torch.nn.Module, *, own_attention: bool) -> PageShape | None:
    """Let a module's layers compute faster, with a copy of their weights.

    Args:
        module: is on a CPU, and not trained.
        own_attention: whether its attention is ours. If so, and all of its layers are of the kinds that
            are known, they are exchanged whole; of other modules, the products.

    Returns:
        if layers were exchanged, what they keep of a position, in a `PagedCache`: they compute positions
        of several rows as if they were of one, and know from the cache whose they are.
    """
    if not can_pack():
        return None
    faster: dict[Any, _Layer] = {}
    if own_attention and load_kernels():
        faster = {part: layer for part in module.modules() if (layer := _faster(part))}
    config: Any = module.config if faster else None
    alike = len({layer.shape for layer in faster.values()}) == 1
    if not alike or len(faster) < config.num_hidden_layers:
        faster = {}
    stack = Stack([layer.numbers for layer in faster.values()]) if faster else None
    for part, layer in faster.items():
        part.forward, layer.stack = layer.forward, stack
    exchanged = {part for layer in faster for part in layer.modules()}
    for part in module.modules():
        if part not in exchanged and is_product(part):
            part.forward = Product(part)
    shape = next((layer.shape for layer in faster.values()), None)
    return PageShape(len(faster), *shape[:3]) if shape else None


def _faster(layer: Any) -> _Layer | None:
    """Return what computes as a layer does, if there is such a thing for its kind and numbers."""
    build = {_GPT2: _gpt2, **dict.fromkeys(_LLAMA, _llama)}.get(kind(layer))
    if build is None:
        return None
    dtypes = {each.dtype for each in layer.parameters()}
    if len(dtypes) > 1 or not dtypes <= KERNEL_DTYPES.keys():
        return None
    return build(layer)


class _Layer:
    """A decoder layer: attention, then a part that sees one position, each of a norm and added.

    What lies between its products are kernels: for a few positions, each operation of torch takes longer
    to begin than to compute. It computes positions of several rows, one row's after another's.
    """

    stack: Stack | None = None
    """All layers at once, for a few positions."""

    def __init__(
        self,
        attention: Any,
        norms: tuple[Any, Any],
        products: tuple[Product, Product, Product, Product],
        *,
        gated: bool,
    ) -> None:
        """Take the products: attention's queries, keys and values as one, its output, and the other part's two.

        Where it is gated, what comes of the third goes through SwiGLU.
        """
        self._attention, self._norms, self._gated = attention, norms, gated
        self._ask, self._answer, self._up, self._down = products
        self._dim: int = attention.head_dim
        self._heads: int = attention.config.num_attention_heads
        self._groups = self._heads // getattr(attention, "num_key_value_groups", 1)
        self._number: int = attention.layer_idx
        inner: int = self._down.weight.shape[1]
        self.shape = self._groups, self._dim, self._ask.weight.dtype, inner
        """The heads, their width, and the dtype of its keys; and the width of the other part."""

    @property
    def numbers(self) -> Numbers:
        """What it computes with."""
        first, second = self._norms
        of_query, of_key = self._head_norms()
        return Numbers(
            norm=first.weight,
            norm_bias=getattr(first, "bias", None),
            ask=self._ask.weight,
            ask_bias=self._ask.bias,
            of_query=None if of_query is None else of_query.weight,
            of_key=None if of_key is None else of_key.weight,
            answer=self._answer.weight,
            answer_bias=self._answer.bias,
            second_norm=second.weight,
            second_bias=getattr(second, "bias", None),
            up=self._up.weight,
            up_bias=self._up.bias,
            down=self._down.weight,
            down_bias=self._down.bias,
            eps=_eps(first),
            head_eps=0.0 if of_query is None else _eps(of_query),
            scale=self._attention.scaling,
            heads=self._heads,
            groups=self._groups,
            dim=self._dim,
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        second: PagedCache | None = None,  # GPT-2 gets its cache here, Llama by its name
        *_: Any,
        cache: PagedCache | None = None,
        position_embeddings: Rotation | None = None,
        **__: Any,  # what else the layer is told, it does not need
    ) -> torch.Tensor:
        """Compute (1, new, hidden) from what the layer before gave."""
        states, cache = hidden_states, cache or second
        assert cache is not None
        if self.stack is not None and states.shape[1] <= FEW[states.dtype]:
            # The first layer computes all of them; the others pass on what they get.
            return states if self._number else self.stack(states, cache, position_embeddings)
        asked = self._ask(_normed(self._norms[0], states))
        if position_embeddings is not None:
            self._rotate(asked, position_embeddings)
        states = self._answer(self._attend(asked, cache), states)
        inner = self._up(_normed(self._norms[1], states))
        return self._down(_gated(inner) if self._gated else inner, states)

    def _head_norms(self) -> tuple[Any, Any]:
        """Return the norms of queries and keys, which some models have."""
        return getattr(self._attention, "q_norm", None), getattr(self._attention, "k_norm", None)

    def _rotate(self, asked: torch.Tensor, rotation: Rotation) -> None:
        """Turn queries and keys, in place, to their positions; some models normalise them before."""
        _, new, width = asked.shape
        norms = self._head_norms()
        cosines, sines = (each.contiguous() for each in rotation)
        kernel("rotate", asked.dtype)(
            *(each.data_ptr() for each in (asked, cosines, sines)),
            *(None if norm is None else norm.weight.data_ptr() for norm in norms),
            *(new, self._heads + self._groups, self._heads, self._dim, width),
            0.0 if norms[0] is None else _eps(norms[0]),
            torch.get_num_threads(),
        )

    def _attend(self, asked: torch.Tensor, cache: PagedCache) -> torch.Tensor:
        """Store the keys and values, and attend."""
        _, new, width = asked.shape
        fresh = asked.data_ptr() + self._heads * self._dim * asked.itemsize
        out = asked.new_empty(1, new, self._heads * self._dim)
        kernel("attend", asked.dtype)(
            *(asked.data_ptr(), fresh, out.data_ptr()),
            *(cache.table.data_ptr(), cache.table.shape[1], *cache.offsets(self._number)),
            *(cache.slots.data_ptr(), cache.positions.data_ptr()),
            *(new, self._heads, self._groups, self._dim, width, PAGE * self._dim),
            self._attention.scaling,
            torch.get_num_threads(),
        )
        return out


def _normed(norm: Any, states: torch.Tensor) -> torch.Tensor:
    out, width = torch.empty_like(states), states.shape[-1]
    bias = getattr(norm, "bias", None)
    kernel("norm", states.dtype)(
        *(states.data_ptr(), norm.weight.data_ptr(), None if bias is None else bias.data_ptr()),
        *(out.data_ptr(), states.numel() // width, width),
        _eps(norm),
        torch.get_num_threads(),
    )
    return out


def _gated(gates: torch.Tensor) -> torch.Tensor:
    """Return SwiGLU of (rows, new, 2 * width), the gates before what goes through them."""
    *rows, width = gates.shape
    out = gates.new_empty(*rows, width // 2)
    kernel("gate", gates.dtype)(
        *(gates.data_ptr(), out.data_ptr(), out.numel() // out.shape[-1], out.shape[-1]),
        torch.get_num_threads(),
    )
    return out


def _gpt2(block: Any) -> _Layer | None:
    attention, mlp = block.attn, block.mlp
    products = attention.c_attn, attention.c_proj, mlp.c_fc, mlp.c_proj
    if kind(mlp.act) not in FUSED or not _fit(attention, *products):
        return None
    activation, variant = FUSED[kind(mlp.act)]
    ask, answer, down = map(Product, (attention.c_attn, attention.c_proj, mlp.c_proj))
    up = Product(mlp.c_fc, activation=activation, variant=variant)
    return _Layer(attention, (block.ln_1, block.ln_2), (ask, answer, up, down), gated=False)


def _llama(block: Any) -> _Layer | None:
    attention, mlp = block.self_attn, block.mlp
    asking = attention.q_proj, attention.k_proj, attention.v_proj
    gates = mlp.gate_proj, mlp.up_proj
    products = *asking, attention.o_proj, *gates, mlp.down_proj
    if kind(mlp.act_fn) not in _SILU or not _fit(attention, *products):
        return None
    ask, answer = Product(*asking), Product(attention.o_proj)
    up, down = Product(*gates), Product(mlp.down_proj)
    norms = block.input_layernorm, block.post_attention_layernorm
    return _Layer(attention, norms, (ask, answer, up, down), gated=True)


def _fit(attention: Any, *products: Any) -> bool:
    """Say whether an attention is one of the kernel's, and its products can be packed."""
    return attention.head_dim <= WIDEST and all(map(is_product, products))


def _eps(norm: Any) -> float:
    eps: float = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return eps
