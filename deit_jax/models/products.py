"""Matrix products that take operands of the compute type and accumulate in float32.

Derivatives are written by hand where autodiff would multiply a float32 cotangent by an operand of
lower precision, which no backend does fast.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def fusion_barrier(x: Array) -> Array:
    """Return `x`, which XLA:CPU must then compute on its own; the identity on other backends.

    XLA:CPU fuses transposes, softmax and GELU into the operands of products, and then evaluates
    them again for every tile of the product. GPU and TPU compilers make that choice well.
    """
    if jax.default_backend() != "cpu":
        return x
    if x.dtype == jnp.float32:
        return jax.lax.optimization_barrier(x)
    # The reshape hides a transpose before it: XLA:CPU has no fast product for lower precision
    # whose operand's inner axis looks strided, and would convert both operands to float32.
    return jax.lax.optimization_barrier(x[None])[0]


def product(
    x: Float[Array, "*batch rows_x columns_x"],
    y: Float[Array, "*batch rows_y columns_y"],
    over: tuple[int, int] = (-1, -2),
) -> Float[Array, "*batch rows columns"]:
    """Multiply the matrices of each batch entry; float32 result.

    Args:
        x: left factor.
        y: right factor, of the same type.
        over: the axis of `x` and the axis of `y` to sum over: (-1, -2) is `x @ y`, (-1, -1)
            is `x @ y.T`, (-2, -2) is `x.T @ y`.
    """
    if over[0] == -2 and x.dtype != jnp.float32:
        # XLA:CPU multiplies lower precision fast only if the left factor is contiguous there.
        x, over = fusion_barrier(jnp.swapaxes(x, -1, -2)), (-1, over[1])
    batch = tuple(range(x.ndim - 2))
    contract = ((x.ndim + over[0],), (y.ndim + over[1],))
    out = jax.lax.dot_general(x, y, (contract, (batch, batch)), preferred_element_type=jnp.float32)
    # Keeps a later transpose from being folded into the product: XLA:CPU cannot run the result
    # if the factors are bfloat16.
    return fusion_barrier(out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dense(
    x: Float[Array, "rows inner"],
    kernel: Float[Array, "inner columns"],
    bias: Float[Array, "columns"],
    out_dtype: Any,
) -> Float[Array, "rows columns"]:
    """Return `x @ kernel + bias`, with the kernel and all gradients rounded to the type of `x`."""
    return (product(x, kernel.astype(x.dtype)) + bias).astype(out_dtype)


def _dense_forward(
    x: Array, kernel: Array, bias: Array, out_dtype: Any
) -> tuple[Array, tuple[Array, Array]]:
    return dense(x, kernel, bias, out_dtype), (x, kernel)


def _dense_backward(
    out_dtype: Any, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array, Array]:
    x, kernel = saved
    grad = fusion_barrier(grad.astype(x.dtype))
    grad_x = product(grad, kernel.astype(x.dtype), (-1, -1)).astype(x.dtype)
    return grad_x, product(x, grad, (-2, -2)), grad.sum(0, dtype=jnp.float32)


dense.defvjp(_dense_forward, _dense_backward)
