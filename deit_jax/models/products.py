"""Matrix products of factors in one type, float32 or lower, accumulated in float32.

Their derivatives are of the same kind. Autodiff would multiply float32 gradients by factors of
lower precision instead, for which no hardware has an instruction.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deit_jax.devices import platform

# JAX 0.11 computes float32 on CPUs otherwise than 0.10, which the forms for it would slow.
_JAX_0_11 = jax.__version_info__ >= (0, 11)


def materialise(x: Array) -> Array:
    """Return `x`; on the CPU laid out as its shape says, float32 from JAX 0.11 on.

    XLA:CPU multiplies bfloat16 at full speed only if it can tell that both factors are contiguous,
    and a transposed array is not until a reshape and a barrier hide where it comes from. Else it
    converts both factors to float32. Float32 it would write in one order for the product and in
    another for the backward pass. Other backends choose layouts well.
    """
    if platform() != "cpu" or (x.dtype == jnp.float32 and not _JAX_0_11):
        return x
    return jax.lax.optimization_barrier(x[None])[0]


def product(
    x: Float[Array, "*batch rows_x columns_x"],
    y: Float[Array, "*batch rows_y columns_y"],
    over: tuple[int, int] = (-1, -2),
    out_dtype: Any = jnp.float32,
    *,
    apart: bool = True,
) -> Float[Array, "*batch rows columns"]:
    """Multiply the matrices of each batch entry, adding up in float32.

    Args:
        x: left factor.
        y: right factor, of the same type.
        over: the axis of `x` and the axis of `y` to sum over: (-1, -2) is `x @ y`, (-1, -1)
            is `x @ y.T`, (-2, -2) is `x.T @ y`.
        out_dtype: type of the result. Accelerators round the sums to it before they reach memory;
            CPUs, where such a product takes twice as long, give float32 whatever is asked for.
        apart: on CPUs in lower precision than float32, whether what follows stays out of the
            product, as a transpose has to. Without it the softmax between two is fused with both.
    """
    on_cpu = platform() == "cpu"
    low_precision = x.dtype != jnp.float32
    if on_cpu and not low_precision and over == (-2, -2) and _wide(x, y):
        # The same sums in a fifth less time; without the barrier XLA would change them back.
        return jnp.swapaxes(jax.lax.optimization_barrier(product(y, x, over)), -1, -2)
    if on_cpu and low_precision and over[0] == -2:
        # Fast only if the left factor is contiguous along the summed axis.
        x, over = materialise(jnp.swapaxes(x, -1, -2)), (-1, over[1])
    batch = tuple(range(x.ndim - 2))
    contract = ((x.ndim + over[0],), (y.ndim + over[1],))
    kind = jnp.float32 if on_cpu else out_dtype
    out = jax.lax.dot_general(x, y, (contract, (batch, batch)), preferred_element_type=kind)
    if on_cpu and low_precision and apart:
        # XLA:CPU would fold a transpose that follows into the product, and cannot run the result.
        out = jax.lax.optimization_barrier(out)
    return out


def _wide(x: Array, y: Array) -> bool:
    """Return whether Eigen, which multiplies float32 summed over rows, wants `y` on the left."""
    return _JAX_0_11 and x.ndim == 2 and x.shape[1] > y.shape[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dense(
    x: Float[Array, "rows inner"],
    kernel: Float[Array, "inner columns"],
    bias: Float[Array, " columns"],
    out_dtype: Any,
) -> Float[Array, "rows columns"]:
    """Return `x @ kernel + bias`, with the kernel and all gradients rounded to the type of `x`."""
    out = product(x, kernel.astype(x.dtype), out_dtype=out_dtype)
    return (out + bias.astype(out.dtype)).astype(out_dtype)


def _dense_forward(
    x: Array, kernel: Array, bias: Array, out_dtype: Any
) -> tuple[Array, tuple[Array, Array]]:
    return dense(x, kernel, bias, out_dtype), (x, kernel)


def _dense_backward(
    out_dtype: Any, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array, Array]:
    x, kernel = saved
    grad = grad.astype(x.dtype)
    grad_x = product(grad, kernel.astype(x.dtype), (-1, -1), x.dtype).astype(x.dtype)
    return grad_x, product(x, grad, (-2, -2)), grad.sum(0, dtype=jnp.float32)


dense.defvjp(_dense_forward, _dense_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dense_apart(
    x: Float[Array, "rows inner"],
    kernel: Float[Array, "inner columns"],
    bias: Float[Array, " columns"],
    parts: int,
) -> tuple[Float[Array, "rows part"], ...]:
    """Return `dense`, in the type of `x`, cut into equal parts of its columns.

    Each part is a product of its own: where memory is slow, cutting a wide result and joining its
    gradients takes as long as the products.
    """
    pieces = zip(jnp.split(kernel, parts, axis=1), jnp.split(bias, parts), strict=True)
    return tuple(dense(x, *piece, x.dtype) for piece in pieces)


def _apart_forward(
    x: Array, kernel: Array, bias: Array, parts: int
) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
    return dense_apart(x, kernel, bias, parts), (x, kernel)


def _apart_backward(
    parts: int, saved: tuple[Array, Array], grads: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    x, kernel = saved
    pieces = zip(jnp.split(kernel, parts, axis=1), grads, strict=True)
    back = [_dense_backward(x.dtype, (x, piece), grad) for piece, grad in pieces]
    grads_x, grads_kernel, grads_bias = zip(*back, strict=True)
    # A product before the sum of those so far: XLA looks there for one that can add to it.
    grad_x = functools.reduce(lambda total, grad: grad + total, grads_x)
    return grad_x, jnp.concatenate(grads_kernel, axis=1), jnp.concatenate(grads_bias)


dense_apart.defvjp(_apart_forward, _apart_backward)
