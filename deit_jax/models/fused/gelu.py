"""Exact GELU as part of the products on both sides of it.

Forwards the first product of an MLP adds its bias and gives what is behind GELU, and what is before
it if a backward pass needs that. Backwards the gradient behind GELU never reaches memory: the
product that computes it multiplies it by the derivative, and adds up the gradient of the bias.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from deit_jax.models.fused.calls import Kernel, RowArrays, launch_kernel, load, power_of_two, store
from deit_jax.models.layers import gelu, gelu_gradient
from deit_jax.models.products import product

_ROWS = _COLUMNS = 128
"""Of the result, computed by one place of the grid."""
_INNER = 64
"""Products that are added up at a time."""
_LEAST = 16
"""That tensor cores multiply."""

Hidden = Float[Array, "rows hidden"]


def _twin_forward(
    rows: RowArrays, kernel: Array, bias: Array, *, with_before: bool = True
) -> tuple[Hidden, ...]:
    (x,) = rows
    assert x is not None
    out = product(x, kernel, out_dtype=x.dtype)
    before = (out + bias.astype(out.dtype)).astype(x.dtype)
    return (before, gelu(before)) if with_before else (gelu(before),)


def _twin_backward(rows: RowArrays, kernel: Array) -> tuple[Hidden, Array]:
    grad, before = rows
    assert grad is not None and before is not None
    behind = product(grad, kernel, (-1, -1), grad.dtype).astype(grad.dtype)
    out = gelu_gradient(before, behind)
    return out, out.sum(0, dtype=jnp.float32)[None]


def _product_gelu(
    rows: RowArrays, kernel: Array, bias: Array, *, with_before: bool = True
) -> tuple[Array, ...]:
    (x,) = rows
    assert x is not None
    (count, inner), columns = x.shape, kernel.shape[1]
    wide = power_of_two(columns, _COLUMNS)
    out = pl.BlockSpec((_ROWS, wide), lambda j, i: (i, j))
    result = jax.ShapeDtypeStruct((count, columns), x.dtype)
    results = 2 if with_before else 1
    return launch_kernel(
        "product_gelu",
        partial(_forward_body, count=count),
        (x, kernel, bias),
        # Neighbours share their rows of x, which are then read once.
        (columns // wide, pl.cdiv(count, _ROWS)),
        (
            [
                pl.BlockSpec((_ROWS, inner), lambda j, i: (i, 0)),
                pl.BlockSpec((inner, wide), lambda j, i: (0, j)),
                pl.BlockSpec((wide,), lambda j, i: (j,)),
            ],
            [out] * results,
        ),
        [result] * results,
        warps=8,
        stages=3,
        operations=2 * count * inner * columns,
    )


def _forward_body(x: Any, kernel: Any, bias: Any, *out: Any, count: int) -> None:
    *before, behind = out
    inside = _inside(pl.program_id(1), count)
    total = _multiply(x, kernel, inside, x.shape[1], behind.shape[1], along=0)
    rounded = (total + bias[...][None]).astype(behind.dtype)
    mask = jnp.broadcast_to(inside, rounded.shape)
    for wanted in before:
        store(wanted, rounded, mask)
    wide = rounded.astype(jnp.float32)
    store(behind, wide * _distribution(wide)[0], mask)


def _gradient_product_gelu(rows: RowArrays, kernel: Array) -> tuple[Array, ...]:
    grad, before = rows
    assert grad is not None and before is not None
    (count, inner), columns = grad.shape, kernel.shape[0]
    wide, bands = power_of_two(columns, _COLUMNS), pl.cdiv(count, _ROWS)
    out = pl.BlockSpec((_ROWS, wide), lambda j, i: (i, j))
    return launch_kernel(
        "gradient_product_gelu",
        partial(_backward_body, count=count),
        (grad, before, kernel),
        (columns // wide, bands),
        (
            [
                pl.BlockSpec((_ROWS, inner), lambda j, i: (i, 0)),
                out,
                pl.BlockSpec((wide, inner), lambda j, i: (j, 0)),
            ],
            [out, pl.BlockSpec((1, wide), lambda j, i: (i, j))],
        ),
        [
            jax.ShapeDtypeStruct(before.shape, before.dtype),
            jax.ShapeDtypeStruct((bands, columns), jnp.float32),
        ],
        warps=8,
        stages=3,
        operations=2 * count * inner * columns,
    )


def _backward_body(grad: Any, before: Any, kernel: Any, out: Any, sums: Any, *, count: int) -> None:
    inside = _inside(pl.program_id(1), count)
    total = _multiply(grad, kernel, inside, grad.shape[1], out.shape[1], along=1)
    mask = jnp.broadcast_to(inside, total.shape)
    wide = load(before, mask).astype(jnp.float32)
    distribution, density = _distribution(wide)
    rounded = (total * (distribution + wide * density)).astype(out.dtype)
    store(out, rounded, mask)
    # Rows that are not there have the gradient 0.
    sums[0, :] = rounded.astype(jnp.float32).sum(0)


def _multiply(x: Any, kernel: Any, inside: Array, inner: int, columns: int, along: int) -> Array:
    """Return the product of all of x's block with all of the kernel's, over its axis `along`."""
    step = power_of_two(inner, _INNER)

    def add(k: Array, total: Array) -> Array:
        part = pl.ds(k * step, step)
        mask = jnp.broadcast_to(inside, (x.shape[0], step))
        left = load(x.at[:, part], mask)
        right = kernel[part, :] if along == 0 else kernel[:, part].T
        return total + jnp.dot(left, right, preferred_element_type=jnp.float32)

    return jax.lax.fori_loop(0, inner // step, add, jnp.zeros((x.shape[0], columns), jnp.float32))


def _distribution(x: Array) -> tuple[Array, Array]:
    """Return the normal distribution and its density; Triton has no erf in Pallas.

    By Hastings' approximation of erf, off by 1.5e-7 at most (Abramowitz and Stegun 1964, 7.1.26);
    results are rounded to 8 bits.
    """
    t = 1.0 / (1.0 + (0.3275911 * math.sqrt(0.5)) * jnp.abs(x))
    bell = jnp.exp(-0.5 * x * x)
    series = jnp.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + factor) * t
    tail = 0.5 * series * bell
    return jnp.where(x < 0, tail, 1.0 - tail), bell * (1.0 / math.sqrt(2 * math.pi))


def _inside(band: Array, count: int) -> Array:
    """Return which rows of a band there are, as a column."""
    return (band * _ROWS + jnp.arange(_ROWS) < count)[:, None]


def _misfit(rows: RowArrays, kernel: Array, *_: Array, **__: bool) -> str:
    types = {str(x.dtype) for x in (*rows, kernel) if x is not None}
    if types != {"bfloat16"}:
        return f"it is for products in bfloat16, not in {', '.join(sorted(types))}"
    if any(power_of_two(length, _LEAST) < _LEAST for length in kernel.shape):
        return (
            f"of {kernel.shape[0]} x {kernel.shape[1]} weights, a side is no multiple of {_LEAST}"
        )
    return ""


product_gelu = Kernel(_product_gelu, _twin_forward, _misfit)
"""Of (x,), kernel [inner, hidden] of the same type and bias: x @ kernel + bias, and GELU of it; the
latter alone without `with_before`."""
gradient_product_gelu = Kernel(_gradient_product_gelu, _twin_backward, _misfit)
"""Of (gradient of the MLP's result, what is before GELU) and the second kernel [hidden, out]: the
gradient before GELU, and its sums over rows as parts [some, hidden] that are still to be added."""
