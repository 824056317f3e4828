"""The end of a residual branch and the normalisation that follows it, in one kernel each way.

Forwards: add the branch, with its bias and stochastic depth, to the stream, and normalise. Every
number is read once and written once. Backwards: the gradients of stream and branch, and all three
sums over rows: of the branch's bias, of scale and of shift.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from deit_jax.models.fused.calls import (
    Kernel,
    RowArrays,
    launch_kernel,
    load,
    power_of_two,
    store,
)

_TILE = 3072
"""Numbers that 128 threads hold of an array at a time: 24 each, so that six arrays fit."""
_PROGRAMS = 528
"""That share the rows of the backward pass: four for each of an H200's 132 multiprocessors. Each
adds up its own rows, so that few sums are left for another kernel."""
_MOST_PARTS = 8
"""Of a row, each a power of two: more of them would be too small to read at speed."""

TokenRows = Float[Array, "rows width"]
RowNumbers = Float[Array, " rows"]


def _twin_forward(
    rows: RowArrays, bias: Array, scale: Array, shift: Array, *, epsilon: float, dtype: Any
) -> tuple[TokenRows, TokenRows, RowNumbers, RowNumbers]:
    x, branch, keep = rows
    assert x is not None and branch is not None
    wide = branch.astype(jnp.float32) + bias
    wide = wide if keep is None else wide * keep[:, None]
    total = (x.astype(jnp.float32) + wide).astype(x.dtype)
    wide = total.astype(jnp.float32)
    mean = wide.mean(-1)
    centred = wide - mean[:, None]
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1) + epsilon)
    normal = centred * inverse[:, None] * scale + shift
    return total, normal.astype(dtype), mean, inverse


def _twin_backward(rows: RowArrays, scale: Array, *, dtype: Any) -> tuple[Array, ...]:
    grad_total, grad_normal, total, mean, inverse, keep = rows
    assert total is not None and mean is not None and inverse is not None
    assert grad_total is not None and grad_normal is not None
    grad = grad_normal.astype(jnp.float32)
    normal = (total.astype(jnp.float32) - mean[:, None]) * inverse[:, None]
    scaled = grad * scale
    along = (scaled * normal).mean(-1, keepdims=True)
    centred = scaled - scaled.mean(-1, keepdims=True) - along * normal
    wide = grad_total.astype(jnp.float32) + inverse[:, None] * centred
    branch = (wide if keep is None else wide * keep[:, None]).astype(dtype)
    sums = [branch.astype(jnp.float32).sum(0), (grad * normal).sum(0), grad.sum(0)]
    return wide.astype(total.dtype), branch, jnp.stack(sums)[None]


def _add_norm_forward(
    rows: RowArrays, bias: Array, scale: Array, shift: Array, *, epsilon: float, dtype: Any
) -> tuple[Array, ...]:
    x, _, keep = rows
    assert x is not None
    (count, width), tile = x.shape, _tile_rows(x.shape[1])
    block = pl.BlockSpec((tile, width), lambda i: (i, 0))
    line, vector = pl.BlockSpec((tile,), lambda i: (i,)), pl.BlockSpec((width,), lambda i: (0,))
    statistic = jax.ShapeDtypeStruct((count,), jnp.float32)
    return launch_kernel(
        "add_norm_forward",
        partial(_forward_body, count=count, epsilon=epsilon, kept=keep is not None),
        _present(*rows, bias, scale, shift),
        (pl.cdiv(count, tile),),
        ([block] * 2 + [line] * (keep is not None) + [vector] * 3, [block] * 2 + [line] * 2),
        [_like(x), jax.ShapeDtypeStruct(x.shape, dtype), statistic, statistic],
    )


def _forward_body(x: Any, branch: Any, *refs: Any, count: int, epsilon: float, kept: bool) -> None:
    keep, refs = (refs[0], refs[1:]) if kept else (None, refs)
    bias, scale, shift, total, normal, mean, inverse = refs
    tile, width = x.shape
    inside = _inside(pl.program_id(0) * tile, tile, count)
    factor = None if keep is None else _read(keep, 0, inside, tile)[:, None]
    sums = []
    for part in _parts(width):
        wide = _read(branch, 0, inside, tile, part) + bias[part][None]
        wide = wide if factor is None else wide * factor
        wide = (_read(x, 0, inside, tile, part) + wide).astype(total.dtype)
        _write(total, 0, inside, tile, wide, part)
        sums.append(wide.astype(jnp.float32))
    average = _sum_of_rows(sums) / width
    centred = [wide - average[:, None] for wide in sums]
    deviation = jax.lax.rsqrt(_sum_of_rows([x * x for x in centred]) / width + epsilon)
    for part, wide in zip(_parts(width), centred, strict=True):
        wide = wide * deviation[:, None] * scale[part][None] + shift[part][None]
        _write(normal, 0, inside, tile, wide, part)
    _write(mean, 0, inside, tile, average)
    _write(inverse, 0, inside, tile, deviation)


def _add_norm_backward(rows: RowArrays, scale: Array, *, dtype: Any) -> tuple[Array, ...]:
    *_, total, _, _, keep = rows
    assert total is not None
    (count, width), tile = total.shape, _tile_rows(total.shape[1])
    strip = pl.cdiv(pl.cdiv(count, tile), _PROGRAMS) * tile
    programs = pl.cdiv(count, strip)
    # Without stochastic depth, and in one type, both gradients are the same numbers.
    apart = keep is not None or total.dtype != dtype
    block = pl.BlockSpec((strip, width), lambda i: (i, 0))
    line, vector = pl.BlockSpec((strip,), lambda i: (i,)), pl.BlockSpec((width,), lambda i: (0,))
    of_program = pl.BlockSpec((1, 3, width), lambda i: (i, 0, 0))
    grad, *branch, sums = launch_kernel(
        "add_norm_backward",
        partial(_backward_body, count=count, tile=tile, kept=keep is not None),
        _present(*rows, scale),
        (programs,),
        (
            [block] * 3 + [line] * 2 + [line] * (keep is not None) + [vector],
            [block] * (1 + apart) + [of_program],
        ),
        [
            _like(total),
            *[jax.ShapeDtypeStruct(total.shape, dtype)] * apart,
            jax.ShapeDtypeStruct((programs, 3, width), jnp.float32),
        ],
    )
    return grad, branch[0] if apart else grad, sums


def _backward_body(
    grad_total: Any, grad_normal: Any, total: Any, mean: Any, inverse: Any, *refs: Any, **sizes: Any
) -> None:
    count, tile, kept = sizes["count"], sizes["tile"], sizes["kept"]
    keep, refs = (refs[0], refs[1:]) if kept else (None, refs)
    scale, out, *branch, sums = refs
    strip, width = total.shape
    parts, first = _parts(width), pl.program_id(0) * strip

    def add_tile(step: Array, added: list[list[Array]]) -> list[list[Array]]:
        row = step * tile
        inside = _inside(first + row, tile, count)
        read = partial(_read, row=row, inside=inside, tile=tile)
        average, deviation = (read(x)[:, None] for x in (mean, inverse))
        factor = None if keep is None else read(keep)[:, None]
        grads = [read(grad_normal, part=part) for part in parts]
        # Rows that are not there have the mean 0, too.
        normals = [(read(total, part=part) - average) * deviation for part in parts]
        scaled = [grad * scale[part][None] for grad, part in zip(grads, parts, strict=True)]
        products = [x * y for x, y in zip(scaled, normals, strict=True)]
        along = (_sum_of_rows(products) / width)[:, None]
        level = (_sum_of_rows(scaled) / width)[:, None]
        result = []
        for k, part in enumerate(parts):
            wide = scaled[k] - level - along * normals[k]
            wide = read(grad_total, part=part) + deviation * wide
            _write(out, row, inside, tile, wide, part)
            wide = wide if factor is None else wide * factor
            rounded = wide.astype((branch or [out])[0].dtype)
            for ref in branch:
                _write(ref, row, inside, tile, rounded, part)
            new = rounded.astype(jnp.float32), grads[k] * normals[k], grads[k]
            result.append([old + x for old, x in zip(added[k], new, strict=True)])
        return result

    zeros = [[jnp.zeros((tile, part.size), jnp.float32)] * 3 for part in parts]
    added = jax.lax.fori_loop(0, strip // tile, add_tile, zeros)
    for part, numbers in zip(parts, added, strict=True):
        for which, x in enumerate(numbers):
            sums[0, which, part] = x.sum(0)


def _misfit(rows: RowArrays, *whole: Array, dtype: Any, **_: Any) -> str:
    known = (jnp.float32, jnp.bfloat16)
    types = {x.dtype for x in (*rows, *whole) if x is not None} | {jnp.dtype(dtype)}
    if strange := sorted(str(kind) for kind in types if kind not in known):
        return f"it is for float32 and bfloat16, not for {', '.join(strange)}"
    width = whole[0].shape[-1]
    if len(_parts(width)) > _MOST_PARTS:
        return f"a width of {width} has no power of two of at least an eighth of it as a divisor"
    return ""


add_norm_forward = Kernel(_add_norm_forward, _twin_forward, _misfit)
"""Of (stream, branch, factors of rows or None), bias of the branch, scale and shift: the new stream
in its type, it normalised as `dtype`, means and 1 / deviations of its rows."""
add_norm_backward = Kernel(_add_norm_backward, _twin_backward, _misfit)
"""Of (gradients of both results, new stream, means, 1 / deviations, factors) and scale: the
gradients of the stream and, as `dtype`, of the branch; the sums for bias, scale and shift, as parts
[some, 3, width] that are still to be added up."""


def _tile_rows(width: int) -> int:
    """Rows that are held at a time: a power of two."""
    return 1 << max(min(_TILE // width, 16).bit_length() - 1, 0)


def _parts(width: int) -> list[Any]:
    """Cut columns into parts: Triton's arrays are powers of two long."""
    size = power_of_two(width, 1024)
    return [pl.ds(begin, size) for begin in range(0, width, size)]


def _inside(first: Any, tile: int, count: int) -> Array:
    return first + jnp.arange(tile) < count


def _where(ref: Any, row: Any, inside: Array, tile: int, part: Any) -> tuple[Any, Array]:
    if part is None:
        return ref.at[pl.ds(row, tile)], inside
    mask = jnp.broadcast_to(inside[:, None], (tile, part.size))
    return ref.at[pl.ds(row, tile), part], mask


def _read(ref: Any, row: Any, inside: Array, tile: int, part: Any = None) -> Array:
    place, mask = _where(ref, row, inside, tile, part)
    return load(place, mask).astype(jnp.float32)


def _write(ref: Any, row: Any, inside: Array, tile: int, values: Array, part: Any = None) -> None:
    place, mask = _where(ref, row, inside, tile, part)
    store(place, values, mask)


def _sum_of_rows(parts: Sequence[Array]) -> Array:
    return sum((x.sum(1) for x in parts[1:]), parts[0].sum(1))


def _present(*arrays: Array | None) -> RowArrays:
    return tuple(x for x in arrays if x is not None)


def _like(x: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
