"""Multi-head self-attention whose backward pass recomputes the attention weights."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.devices import platform
from deit_jax.models import cudnn_attention
from deit_jax.models.layers import Linear, dropout
from deit_jax.models.products import dense, dense_apart, materialise, product
from deit_jax.sharding import whole

AttentionForm = Literal["auto", "recompute"]
"""How attention is computed: "recompute" is `attend`, on any device; "auto" lets cuDNN do it where
it can, which is faster, but whose gradients may be summed in another order every time."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def attend(
    query: Float[Array, "query_rows width"],
    key: Float[Array, "rows width"],
    value: Float[Array, "rows width"],
    batch: int,
    heads: int,
) -> Float[Array, "query_rows width"]:
    """Return softmax(query key^T / sqrt(features)) value for each head, features = width / heads.

    Operands and result have the type of `query`; softmax and sums are float32. The softmax is
    normalised after the value product, on `features` columns instead of `tokens`. For the backward
    pass only the logarithm of its denominator is kept, one number per query and head. On TPUs
    nothing as large as the scores is written in float32.
    """
    return _attend_forward(query, key, value, batch, heads)[0]


def _attend_forward(
    query: Array, key: Array, value: Array, batch: int, heads: int
) -> tuple[Array, tuple[Array, ...]]:
    query, key, value = (split_heads(x, batch, heads) for x in (query, key, value))
    scores = _scores(query, key)
    highest = scores.max(-1, keepdims=True)
    if platform() == "tpu":
        # Computed twice, they need not be written: a product's last step takes their maxima or
        # the exponentials.
        again, highest = jax.lax.optimization_barrier((query, highest))
        scores = _scores(again, key)
    weights = jnp.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    weights = _written(weights, value.dtype).astype(value.dtype)
    out = product(weights, value, apart=False) / total
    out = merge_heads(out.astype(value.dtype))
    return out, (query, key, value, out, highest + jnp.log(total))


def _attend_backward(
    batch: int, heads: int, saved: tuple[Array, ...], grad: Array
) -> tuple[Array, ...]:
    # In one barrier with the gradient, as in jax.checkpoint: nothing is recomputed too early.
    (query, key, value, out, log_total), grad = jax.lax.optimization_barrier((saved, grad))
    # The gradient of a softmax subtracts its mean under the weights, which is grad . out.
    if platform() == "tpu":
        # Their product in float32 would be brought into the other order through memory.
        grad, out = (split_heads(x, batch, heads) for x in (grad, out))
        mean = (grad.astype(jnp.float32) * out).sum(-1)
    else:
        mean = split_heads(grad.astype(jnp.float32) * out, batch, heads).sum(-1)
        grad = split_heads(grad, batch, heads)
    # Transposed, [tokens, queries]: then only the query's gradient needs a transposed product.
    weights = jnp.exp(_scores(key, query) - jnp.swapaxes(log_total, -1, -2))
    weights = _written(weights, query.dtype)
    grad_weights = product(value, grad, (-1, -1))
    scale = query.shape[-1] ** -0.5
    grad_scores = weights * (grad_weights - mean[:, :, None, :]) * scale
    grad_scores = _written(grad_scores, query.dtype).astype(query.dtype)
    weights = weights.astype(query.dtype)
    grads = (
        product(grad_scores, key, (-2, -2)),
        product(grad_scores, query),
        product(weights, grad),
    )
    return tuple(merge_heads(x.astype(query.dtype)) for x in grads)


attend.defvjp(_attend_forward, _attend_backward)


def _written(x: Array, dtype: Any) -> Array:
    """Return `x`; on TPUs in this type, as the product that it is the last step of writes it."""
    return jax.lax.optimization_barrier(x.astype(dtype)) if platform() == "tpu" else x


def _scores(x: Array, y: Array) -> Float[Array, "batch heads tokens_x tokens_y"]:
    return product(x, y, (-1, -1), apart=False) * x.shape[-1] ** -0.5


def split_heads(
    x: Float[Array, "rows width"], batch: int, heads: int
) -> Float[Array, "{batch} {heads} rows//{batch} width//{heads}"]:
    """Cut the width into heads and bring them before the tokens."""
    rows, width = x.shape
    x = x.reshape(batch, rows // batch, heads, width // heads)
    return materialise(x.transpose(0, 2, 1, 3))


def merge_heads(
    x: Float[Array, "batch heads tokens features"],
) -> Float[Array, "batch*tokens heads*features"]:
    """Undo `split_heads`."""
    batch, heads, tokens, features = x.shape
    return materialise(x.transpose(0, 2, 1, 3).reshape(batch * tokens, heads * features))


def first_tokens(
    x: Float[Array, "rows width"], tokens: int, count: int
) -> Float[Array, "rows//{tokens}*{count} width"]:
    """Return the rows of the first `count` of each image's `tokens` tokens."""
    width = x.shape[-1]
    return x.reshape(-1, tokens, width)[:, :count].reshape(-1, width)


class Attention(nnx.Module):
    """Self-attention with one projection to queries, keys and values; columns ordered q, k, v."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        drop_rate: float,
        dtype: Any,
        rngs: nnx.Rngs,
        form: AttentionForm = "auto",
        residual_dtype: Any = jnp.float32,
    ) -> None:
        self.qkv = Linear(width, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = Linear(width, width, dtype=dtype, rngs=rngs)
        self.num_heads = num_heads
        self.drop_rate = drop_rate
        self.form = form
        self.residual_dtype = jnp.dtype(residual_dtype)

    def __call__(
        self,
        x: Float[Array, "rows width"],
        tokens: int,
        queries: int,
        *,
        keys: Key[Array, " batch"] | None = None,
    ) -> Float[Array, "rows//{tokens}*{queries} width"]:
        """Let the first `queries` tokens of each image attend to all its `tokens` tokens."""
        mixed = self.mix(x, tokens, queries)
        return dropout(self.proj(mixed, self.residual_dtype), self.drop_rate, keys)

    def mix(
        self, x: Float[Array, "rows width"], tokens: int, queries: int
    ) -> Float[Array, "rows//{tokens}*{queries} width"]:
        """Return the heads' results side by side, which are to be projected yet."""
        batch, features = x.shape[0] // tokens, x.shape[-1] // self.num_heads
        # A few queries are no work, and cuDNN's kernels are made for many.
        if (
            self.form == "auto"
            and queries == tokens
            and cudnn_attention.takes(self.qkv.dtype, features)
        ):
            kernel, bias = whole(self.qkv.kernel[...], self.qkv.dtype), self.qkv.bias[...]
            query, key, value = dense_apart(x.astype(self.qkv.dtype), kernel, bias, 3)
            return cudnn_attention.attend_cudnn(query, key, value, batch, self.num_heads)
        query, key, value = self._project(x, tokens, queries)
        return attend(query, key, value, batch, self.num_heads)

    def maps(
        self, x: Float[Array, "rows width"], tokens: int
    ) -> Float[Array, "rows//{tokens} {self.num_heads} {tokens} {tokens}"]:
        """Return how much each token (third axis) attends to each other (last axis; sums to 1)."""
        batch = x.shape[0] // tokens
        query, key, _ = (
            split_heads(part, batch, self.num_heads) for part in self._project(x, tokens, tokens)
        )
        return jax.nn.softmax(_scores(query, key))

    def _project(self, x: Array, tokens: int, queries: int) -> list[Array]:
        """Return query, key and value, each [batch*tokens, width] in the compute type."""
        if queries == tokens:
            return jnp.split(self.qkv(x, out_dtype=self.qkv.dtype), 3, axis=-1)
        # The first third of the columns for some tokens, the others for all.
        width = x.shape[-1]
        kernel, bias = whole(self.qkv.kernel[...], self.qkv.dtype), self.qkv.bias[...]
        x = x.astype(self.qkv.dtype)
        query = dense(first_tokens(x, tokens, queries), kernel[:, :width], bias[:width], x.dtype)
        key_value = dense(x, kernel[:, width:], bias[width:], x.dtype)
        return [query, *jnp.split(key_value, 2, axis=-1)]
