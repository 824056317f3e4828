"""The transformer block: attention and MLP, each on a residual branch."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.attention import Attention, AttentionForm, first_tokens
from deit_jax.models.layer_norm import LAYER_NORM_EPSILON, LayerNorm
from deit_jax.models.layers import (
    LayerScale,
    Linear,
    dropout,
    fold_keys,
    gelu,
    stochastic_depth,
)

MLP_RATIO = 4


class Mlp(nnx.Module):
    """Two dense layers with an exact GELU between; dropout after each, as in timm 0.3.2."""

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        drop_rate: float,
        dtype: Any,
        rngs: nnx.Rngs,
        residual_dtype: Any = jnp.float32,
    ) -> None:
        self.fc1 = Linear(width, hidden, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(hidden, width, dtype=dtype, rngs=rngs)
        self.drop_rate = drop_rate
        self.residual_dtype = jnp.dtype(residual_dtype)

    def __call__(
        self, x: Float[Array, "rows width"], *, keys: Key[Array, " batch"] | None = None
    ) -> Float[Array, "rows width"]:
        """Map each row on its own."""
        hidden = gelu(self.fc1(x, out_dtype=self.fc1.dtype))
        hidden = dropout(hidden, self.drop_rate, fold_keys(keys, 0))
        mapped = self.fc2(hidden, self.residual_dtype)
        return dropout(mapped, self.drop_rate, fold_keys(keys, 1))


class Block(nnx.Module):
    """Pre-normalised transformer block: attention, then MLP, each on a residual branch.

    With `layer_scale` each branch ends in a factor for every feature, as in DeiT III. Branches and
    result have the type of the input, which is to be `residual_dtype`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        drop_rate: float,
        drop_path_rate: float,
        dtype: Any,
        rngs: nnx.Rngs,
        layer_scale: bool = False,
        attention: AttentionForm = "auto",
        epsilon: float = LAYER_NORM_EPSILON,
        residual_dtype: Any = jnp.float32,
    ) -> None:
        options: dict[str, Any] = dict(
            drop_rate=drop_rate, dtype=dtype, rngs=rngs, residual_dtype=residual_dtype
        )
        self.norm1 = LayerNorm(width, epsilon)
        self.attn = Attention(width, num_heads, form=attention, **options)
        self.norm2 = LayerNorm(width, epsilon)
        self.mlp = Mlp(width, MLP_RATIO * width, **options)
        self.drop_path_rate = drop_path_rate
        self.layer_scale = layer_scale
        if layer_scale:
            self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def __call__(
        self,
        x: Float[Array, "rows width"],
        tokens: int,
        queries: int,
        *,
        keys: Key[Array, " batch"] | None = None,
        seen: dict[str, Array] | None = None,
    ) -> Float[Array, "rows//{tokens}*{queries} width"]:
        """Return the first `queries` of each image's `tokens` tokens after this block.

        The result for these tokens is exact: they attend to all tokens. Where `seen` is given, it
        receives what the parts of the block computed, by their names (each branch unscaled).
        """
        normal = self.norm1(x)
        attended = self.attn(normal, tokens, queries, keys=fold_keys(keys, 0))
        x = x if queries == tokens else first_tokens(x, tokens, queries)
        branch = self.ls1(attended) if self.layer_scale else attended
        branch = stochastic_depth(branch, self.drop_path_rate, fold_keys(keys, 1))
        x = (x + branch).astype(x.dtype)
        normal2 = self.norm2(x)
        mapped = self.mlp(normal2, keys=fold_keys(keys, 2))
        if seen is not None:
            seen |= {"norm1": normal, "attn": attended, "norm2": normal2, "mlp": mapped}
        branch = self.ls2(mapped) if self.layer_scale else mapped
        branch = stochastic_depth(branch, self.drop_path_rate, fold_keys(keys, 3))
        return (x + branch).astype(x.dtype)
