"""All blocks of a transformer in the order in which kernels can take what lies between products.

A block ends in a sum and the next one begins with its normalisation: here they are one step, and so
are those inside of it. What is computed is what `models.block.Block` computes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from deit_jax.models.attention import first_tokens
from deit_jax.models.block import Block
from deit_jax.models.fused.add_norm import TokenRows, add_norm_backward, add_norm_forward
from deit_jax.models.fused.gelu import gradient_product_gelu, product_gelu
from deit_jax.models.layer_norm import LayerNorm
from deit_jax.models.layers import LayerScale, Linear, fold_keys, kept_images
from deit_jax.models.products import product
from deit_jax.sharding import whole

Affine = tuple[Array, Array]
"""Kernel and bias, or scale and shift."""


class How(NamedTuple):
    """Of the normalisation behind a branch; and whether GELU is computed within products."""

    epsilon: float
    dtype: Any
    with_gelu: bool


def encode(
    blocks: Sequence[Block],
    norm: LayerNorm,
    x: TokenRows,
    tokens: int,
    queries: int,
    keys: Key[Array, " batch"] | None,
    kernels: str,
) -> Float[Array, "first_tokens width"]:
    """Run all blocks and the final normalisation; return each image's first `queries` tokens.

    Blocks have no dropout. The result is float32. With `kernels` "norm" the products before and
    behind GELU are XLA's, with "all" they are kernels, too.
    """
    with_gelu = kernels == "all"
    kind = blocks[0].attn.qkv.dtype
    normal = blocks[0].norm1(x).astype(kind)
    for i, block in enumerate(blocks):
        last, own = i == len(blocks) - 1, fold_keys(keys, i)
        count = queries if last else tokens
        mixed = block.attn.mix(normal, tokens, count)
        x = x if count == tokens else first_tokens(x, tokens, count)
        keep = _factors(block, x, fold_keys(own, 1))
        projection = _weights(block.attn.proj, block.ls1 if block.layer_scale else None)
        how = How(block.norm2.epsilon, kind, with_gelu)
        x, normal = _project(x, mixed, projection, keep, _affine(block.norm2), how)
        keep = _factors(block, x, fold_keys(own, 3))
        first = _weights(block.mlp.fc1)
        second = _weights(block.mlp.fc2, block.ls2 if block.layer_scale else None)
        following = norm if last else blocks[i + 1].norm1
        how = How(following.epsilon, jnp.dtype(jnp.float32) if last else kind, with_gelu)
        x, normal = _mlp(x, normal, first, second, keep, _affine(following), how)
    return normal


def _factors(block: Block, x: TokenRows, keys: Key[Array, " batch"] | None) -> Array | None:
    """Return what stochastic depth multiplies each row of a branch by; None where it does not."""
    rate = block.drop_path_rate
    if keys is None or rate == 0.0:
        return None
    kept = kept_images(rate, keys) / (1.0 - rate)
    # Not `jnp.repeat`, for which devices would gather them.
    return jnp.broadcast_to(kept[:, None], (kept.size, x.shape[0] // kept.size)).reshape(-1)


def _weights(linear: Linear, scale: LayerScale | None = None) -> Affine:
    """Return a layer's kernel and bias, times the factors that its results are multiplied by."""
    kernel, bias = whole(linear.kernel[...], linear.dtype), linear.bias[...]
    if scale is None:
        return kernel, bias
    return kernel * scale.gamma[...], bias * scale.gamma[...]


def _affine(norm: LayerNorm) -> Affine:
    return norm.scale[...], norm.bias[...]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _project(
    x: TokenRows,
    mixed: Float[Array, "rows inner"],
    weights: Affine,
    keep: Array | None,
    affine: Affine,
    how: How,
) -> tuple[TokenRows, TokenRows]:
    """Add a dense layer of `mixed` to the stream; return it, and it normalised."""
    return _project_forward(x, mixed, weights, keep, affine, how)[0]


def _project_forward(
    x: TokenRows,
    mixed: Float[Array, "rows inner"],
    weights: Affine,
    keep: Array | None,
    affine: Affine,
    how: How,
) -> tuple[tuple[TokenRows, TokenRows], tuple]:
    kernel, bias = weights
    branch = product(mixed, kernel.astype(mixed.dtype), out_dtype=x.dtype)
    total, normal, mean, inverse = add_norm_forward(
        (x, branch, keep), bias, *affine, epsilon=how.epsilon, dtype=how.dtype
    )
    return (total, normal), (mixed, kernel, keep, affine[0], total, mean, inverse)


def _project_backward(
    how: How, saved: tuple, grads: tuple[TokenRows, TokenRows]
) -> tuple[Any, ...]:
    mixed, kernel, *_ = saved
    grad, branch, grad_weights, no_keep, grad_affine = _end_of_branch_backward(saved, grads)
    grad_mixed = product(branch, kernel.astype(branch.dtype), (-1, -1), branch.dtype)
    return grad, grad_mixed.astype(mixed.dtype), grad_weights, no_keep, grad_affine


def _end_of_branch_backward(
    saved: tuple, grads: tuple[TokenRows, TokenRows]
) -> tuple[TokenRows, TokenRows, Affine, Array | None, Affine]:
    """Return the gradients of what `_project` takes; of its layer's result instead of `mixed`."""
    mixed, _, keep, scale, *of_rows = saved
    grad, branch, sums = add_norm_backward((*grads, *of_rows, keep), scale, dtype=mixed.dtype)
    grad_bias, grad_scale, grad_shift = sums.sum(0)
    grad_weights = product(mixed, branch, (-2, -2)), grad_bias
    no_keep = None if keep is None else jnp.zeros_like(keep)
    return grad, branch, grad_weights, no_keep, (grad_scale, grad_shift)


_project.defvjp(_project_forward, _project_backward)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def _mlp(
    x: TokenRows,
    normal: TokenRows,
    first: Affine,
    second: Affine,
    keep: Array | None,
    affine: Affine,
    how: How,
) -> tuple[TokenRows, TokenRows]:
    """Add an MLP of `normal` to the stream; return it, and it normalised."""
    # Without a gradient what is before GELU is not written.
    return _mlp_forward(x, normal, first, second, keep, affine, how, with_before=False)[0]


def _mlp_forward(
    x: TokenRows,
    normal: TokenRows,
    first: Affine,
    second: Affine,
    keep: Array | None,
    affine: Affine,
    how: How,
    with_before: bool = True,
) -> tuple[tuple[TokenRows, TokenRows], tuple]:
    compute = product_gelu if how.with_gelu else product_gelu.twin
    kernel = first[0].astype(normal.dtype)
    *before, behind = compute((normal,), kernel, first[1], with_before=with_before)
    out, saved = _project_forward(x, behind, second, keep, affine, how)
    return out, (normal, first[0], before, saved)


def _mlp_backward(how: How, saved: tuple, grads: tuple[TokenRows, TokenRows]) -> tuple[Any, ...]:
    normal, kernel, (before,), end = saved
    grad, branch, grad_second, no_keep, grad_affine = _end_of_branch_backward(end, grads)
    compute = gradient_product_gelu if how.with_gelu else gradient_product_gelu.twin
    grad_before, sums = compute((branch, before), end[1].astype(branch.dtype))
    grad_first = product(normal, grad_before, (-2, -2)), sums.sum(0)
    grad_normal = product(grad_before, kernel.astype(normal.dtype), (-1, -1), normal.dtype)
    return grad, grad_normal.astype(normal.dtype), grad_first, grad_second, no_keep, grad_affine


_mlp.defvjp(_mlp_forward, _mlp_backward)
