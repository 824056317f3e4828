"""Layer normalisation, in float32 whatever the type of its input."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deit_jax.devices import platform
from deit_jax.sharding import per_device

LAYER_NORM_EPSILON = 1e-6
"""Of DeiT's reference; other networks with the same tensors have other values."""

Saved = tuple[Array, Array | None, Array, Array]
"""Rows, their means (None: the rows are already normal), 1 / deviation, scale."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "rows width"],
    scale: Float[Array, " width"],
    bias: Float[Array, " width"],
    epsilon: float = LAYER_NORM_EPSILON,
) -> Float[Array, "rows width"]:
    """Return `x` with mean 0 and variance 1 in each row (but for epsilon), scaled and shifted.

    The result is float32, the gradient has the type of `x`.
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple[Array, Saved]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(-1, keepdims=True)
    if _keeps_rows(x):
        # Both sums in the one pass that also adds the branch, as Flax by default. Off by 2^-24
        # (mean / deviation)^2.
        variance = jnp.maximum(jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean), 0.0)
        inverse = jax.lax.rsqrt(variance + epsilon)
        return (wide - mean) * inverse * scale + bias, (x, mean, inverse, scale)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    normal = centred * inverse
    return normal * scale + bias, (normal, None, inverse, scale)


def _backward(epsilon: float, saved: Saved, grad: Array) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale = saved
    if mean is None:
        return _grad_x(x, inverse, scale, grad), (grad * x).sum(0), grad.sum(0)
    # Behind a barrier XLA takes the means as they are, else every kernel computes them again.
    x, mean, inverse = jax.lax.optimization_barrier((x, mean, inverse))
    normal = (x.astype(jnp.float32) - mean) * inverse
    grad_scale, grad_bias = (
        part.sum(0) for part in per_device(_column_sums)((grad * normal, grad))
    )
    return _grad_x(normal, inverse, scale, grad).astype(x.dtype), grad_scale, grad_bias


def _column_sums(arrays: tuple[Array, Array]) -> tuple[Array, ...]:
    """Return the sums of two arrays over their rows, as one row each.

    As one reduction, so that the gradient is read once for both. The partitioner would gather the
    results of such a one, not add them up.
    """
    zero = jnp.zeros((), jnp.float32)
    sums = jax.lax.reduce(arrays, (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), (0,))
    return tuple(x[None] for x in sums)


def _grad_x(normal: Array, inverse: Array, scale: Array, grad: Array) -> Array:
    grad_normal = grad * scale
    along = (grad_normal * normal).mean(-1, keepdims=True)
    centred = grad_normal - grad_normal.mean(-1, keepdims=True)
    return inverse * (centred - along * normal)


layer_norm.defvjp(_forward, _backward)


def _keeps_rows(x: Array) -> bool:
    """Return whether the backward pass gets the rows and their statistics, not the normal rows.

    Accelerators wait for memory, which the rows are in anyway; a CPU waits for arithmetic.
    """
    return platform() != "cpu" or x.dtype != jnp.float32


class LayerNorm(nnx.Module):
    """Layer normalisation of each row in float32."""

    def __init__(self, width: int, epsilon: float = LAYER_NORM_EPSILON) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        """Return `x` normalised in each row, scaled and shifted."""
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)
