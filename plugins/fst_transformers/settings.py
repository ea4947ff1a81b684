"""What a pipeline may write in `[model]` for each model; the names are those of `transformers`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fst_core import Settings

__all__ = ["GPT2Settings", "LlamaSettings", "LoraSettings", "PretrainedSettings"]

Size = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Small = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class GPT2Settings(Settings):
    """Settings of the model `gpt2`; the defaults train on a laptop."""

    n_positions: Size = 256
    """The longest sequence of ids that the model takes."""
    n_embd: Size = 256
    """The width of the embeddings and of every layer; a multiple of `n_head`."""
    n_layer: Size = 4
    """The number of layers."""
    n_head: Size = 4
    """The number of attention heads in each layer."""
    n_inner: Size | None = None
    """The width inside each feed-forward block; left out, four times `n_embd`."""
    activation_function: Literal["gelu_new", "gelu", "relu", "silu", "tanh"] = "gelu_new"
    """The activation inside each feed-forward block."""
    resid_pdrop: Share = 0.1
    """Dropout after each attention and feed-forward block, in training."""
    embd_pdrop: Share = 0.1
    """Dropout of the embeddings, in training."""
    attn_pdrop: Share = 0.1
    """Dropout of the attention weights, in training."""
    layer_norm_epsilon: Small = 1e-5
    """Added to the variance in each layer normalisation."""
    initializer_range: Small = 0.02
    """The standard deviation of new weights."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd = {self.n_embd} is not a multiple of n_head = {self.n_head}")
        return self


class LlamaSettings(Settings):
    """Settings of the model `llama`; the defaults train on a laptop."""

    max_position_embeddings: Size = 256
    """The longest sequence of ids that the model takes."""
    hidden_size: Size = 256
    """The width of the embeddings and of every layer; a multiple of `num_attention_heads`."""
    intermediate_size: Size = 704
    """The width inside each feed-forward block."""
    num_hidden_layers: Size = 4
    """The number of layers."""
    num_attention_heads: Size = 4
    """The number of attention heads in each layer."""
    num_key_value_heads: Size | None = None
    """The number of key and value heads, which the attention heads share; left out, one for each."""
    hidden_act: Literal["silu", "gelu", "gelu_new", "relu"] = "silu"
    """The activation inside each feed-forward block."""
    rope_theta: float = Field(10_000.0, gt=0, allow_inf_nan=False)
    """The base of the wavelengths of the rotary position embeddings."""
    rms_norm_eps: Small = 1e-6
    """Added to the mean square in each normalisation."""
    initializer_range: Small = 0.02
    """The standard deviation of new weights."""
    attention_dropout: Share = 0.0
    """Dropout of the attention weights, in training."""
    attention_bias: bool = False
    """Whether the projections of the attention have a bias."""
    mlp_bias: bool = False
    """Whether the projections of the feed-forward block have a bias."""
    tie_word_embeddings: bool = True
    """Whether the output layer shares the weights of the embeddings."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = {heads}"
            )
        if self.hidden_size // heads % 2:
            raise ValueError(
                f"hidden_size = {self.hidden_size} gives each of {heads} heads a width of "
                f"{self.hidden_size // heads}; rotary position embeddings need an even one"
            )
        if groups is not None and heads % groups:
            raise ValueError(
                f"num_attention_heads = {heads} is not a multiple of num_key_value_heads = {groups}"
            )
        return self


class LoraSettings(Settings):
    """Settings of `[model.lora]`: small matrices beside the model's own learn in place of these."""

    rank: Size = 8
    """The inner width of the small matrices: more learn more, and take more memory."""
    alpha: float = Field(16.0, gt=0, allow_inf_nan=False)
    """What they learn counts `alpha / rank` times."""
    dropout: Share = 0.0
    """Dropout of what goes into them, in training."""
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = (
        "all-linear"
    )
    """The names of the layers that get them, such as ["q_proj", "v_proj"]; by default all but the output."""


class PretrainedSettings(Settings):
    """Settings of the model `pretrained`."""

    path: str = Field(min_length=1)
    """A directory with config.json and safetensors, a .gguf file, or a name on the Hugging Face hub."""
    freeze_n_layers: int = Field(0, ge=0)
    """How many layers, counted from the embeddings, keep their weights, and the embeddings with them."""
    lora: LoraSettings | None = None
    """Train small matrices beside the model's own, which stay as they are; they are added at the end."""
