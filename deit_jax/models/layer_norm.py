"""Layer normalisation, in float32 whatever the type of its input."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

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
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    normal = centred * inverse
    saved = (x, mean, inverse, scale) if _normalises_again(x) else (normal, None, inverse, scale)
    return normal * scale + bias, saved


def _backward(epsilon: float, saved: Saved, grad: Array) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale = saved
    normal = x
    if mean is not None:
        # Behind a barrier XLA takes the means as they are, else it computes them once more.
        x, mean, inverse = jax.lax.optimization_barrier((x, mean, inverse))
        normal = (x.astype(jnp.float32) - mean) * inverse
    grad_normal = grad * scale
    along = (grad_normal * normal).mean(-1, keepdims=True)
    centred = grad_normal - grad_normal.mean(-1, keepdims=True)
    grad_x = inverse * (centred - along * normal)
    return grad_x.astype(x.dtype), (grad * normal).sum(0), grad.sum(0)


layer_norm.defvjp(_forward, _backward)


def _normalises_again(x: Array) -> bool:
    """Return whether the backward pass keeps rows and their means, not normal rows.

    Accelerators wait for memory, which then holds fewer arrays; a CPU waits for arithmetic.
    """
    return jax.default_backend() != "cpu" or x.dtype != jnp.float32


class LayerNorm(nnx.Module):
    """Layer normalisation of each row in float32."""

    def __init__(self, width: int, epsilon: float = LAYER_NORM_EPSILON) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((width,), jnp.float32))

    def __call__(self, x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        """Return `x` normalised in each row, scaled and shifted."""
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)
