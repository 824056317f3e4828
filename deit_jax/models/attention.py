"""Multi-head self-attention, heads first, with a backward pass that recomputes the scores."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.layers import Linear, dropout
from deit_jax.models.products import dense, fusion_barrier, product


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def attend(
    query: Float[Array, "batch*queries width"],
    key: Float[Array, "batch*tokens width"],
    value: Float[Array, "batch*tokens width"],
    batch: int,
    heads: int,
) -> Float[Array, "batch*queries width"]:
    """Return softmax(query key^T / sqrt(features)) value for each head, features = width / heads.

    The softmax is normalised after the value product, on an array of `features` columns instead of
    `tokens`. The backward pass keeps only the logarithm of the softmax's denominator, one number
    per query, and recomputes the scores from it.
    """
    return _attend_forward(query, key, value, batch, heads)[0]


def _attend_forward(
    query: Array, key: Array, value: Array, batch: int, heads: int
) -> tuple[Array, tuple[Array, ...]]:
    query, key, value = (split_heads(x, batch, heads) for x in (query, key, value))
    scores = _scores(query, key)
    highest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    out = product(fusion_barrier(weights.astype(value.dtype)), value) / total
    out = merge_heads(out.astype(value.dtype))
    return out, (query, key, value, out, highest + jnp.log(total))


def _attend_backward(
    batch: int, heads: int, saved: tuple[Array, ...], grad: Array
) -> tuple[Array, ...]:
    query, key, value, out, log_total = saved
    grad_by_head = split_heads(grad, batch, heads)
    # The gradient of a softmax subtracts its mean under the weights, which is grad . out.
    mean = (grad.astype(jnp.float32) * out).reshape(_by_head(grad, batch, heads)).sum(-1)
    both = product(jnp.stack([key, value]), jnp.stack([query, grad_by_head]), (-1, -1))
    weights = jnp.exp(both[0] * query.shape[-1] ** -0.5 - jnp.swapaxes(log_total, -1, -2))
    grad_weights = both[1]
    scale = query.shape[-1] ** -0.5
    grad_scores = weights * (grad_weights - mean.transpose(0, 2, 1)[:, :, None]) * scale
    grad_scores = fusion_barrier(grad_scores.astype(query.dtype))
    weights = fusion_barrier(weights.astype(query.dtype))
    grads = (
        product(grad_scores, key, (-2, -2)),
        product(grad_scores, query),
        product(weights, grad_by_head),
    )
    return tuple(merge_heads(x.astype(query.dtype)) for x in grads)


attend.defvjp(_attend_forward, _attend_backward)


def _by_head(x: Array, batch: int, heads: int) -> tuple[int, int, int, int]:
    return batch, x.shape[0] // batch, heads, x.shape[1] // heads


def split_heads(
    x: Float[Array, "batch*tokens width"], batch: int, heads: int
) -> Float[Array, "batch heads tokens features"]:
    """Bring heads forward."""
    return fusion_barrier(x.reshape(_by_head(x, batch, heads)).transpose(0, 2, 1, 3))


def merge_heads(
    x: Float[Array, "batch heads tokens features"],
) -> Float[Array, "batch*tokens width"]:
    """Undo `split_heads`."""
    batch, heads, tokens, features = x.shape
    return fusion_barrier(x.transpose(0, 2, 1, 3).reshape(batch * tokens, heads * features))


def _scores(query: Array, key: Array) -> Float[Array, "batch heads queries tokens"]:
    return product(query, key, (-1, -1)) * query.shape[-1] ** -0.5


class Attention(nnx.Module):
    """Self-attention with one projection to queries, keys and values; columns ordered q, k, v."""

    def __init__(
        self, width: int, num_heads: int, *, drop_rate: float, dtype: Any, rngs: nnx.Rngs
    ) -> None:
        self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = Linear(width, width, dtype=dtype, rngs=rngs)
        self.num_heads = num_heads
        self.drop_rate = drop_rate

    def __call__(
        self,
        x: Float[Array, "batch*tokens width"],
        tokens: int,
        queries: int,
        *,
        keys: Key[Array, "batch"] | None = None,
    ) -> Float[Array, "batch*queries width"]:
        """Let the first `queries` tokens of each image attend to all its `tokens` tokens."""
        query, key, value = self._project(x, tokens, queries)
        mixed = attend(query, key, value, x.shape[0] // tokens, self.num_heads)
        return dropout(self.proj(mixed), self.drop_rate, keys)

    def maps(
        self, x: Float[Array, "batch*tokens width"], tokens: int
    ) -> Float[Array, "batch heads tokens tokens"]:
        """Return how much each token (third axis) attends to each other (last axis; sums to 1)."""
        query, key, _ = self._project(x, tokens, tokens)
        batch = x.shape[0] // tokens
        query, key = (split_heads(part, batch, self.num_heads) for part in (query, key))
        return jax.nn.softmax(_scores(query, key))

    def _project(self, x: Array, tokens: int, queries: int) -> list[Array]:
        """Return query, key and value, each [batch*tokens, width] in the compute type."""
        if queries == tokens:
            return jnp.split(self.qkv(x, self.qkv.dtype), 3, axis=-1)
        width = x.shape[-1]
        kernel, bias, dtype = self.qkv.kernel[...], self.qkv.bias[...], self.qkv.dtype
        x = x.astype(dtype)
        x_query = first_tokens(x, tokens, queries)
        query = dense(x_query, kernel[:, :width], bias[:width], dtype)
        key_value = dense(x, kernel[:, width:], bias[width:], dtype)
        return [query, *jnp.split(key_value, 2, axis=-1)]


def first_tokens(
    x: Float[Array, "batch*tokens width"], tokens: int, count: int
) -> Float[Array, "batch*count width"]:
    """Return the rows of the first `count` of each image's `tokens` tokens."""
    width = x.shape[-1]
    return x.reshape(-1, tokens, width)[:, :count].reshape(-1, width)
