"""Pillow's resizing and the crop to the middle as array operations, for images of any size.

In a program the size of the image is unknown when it is written, so each pass is a product with a
matrix that is computed from that size: a row for every pixel wanted, in which Pillow's weights
stand. Positions are kept as whole numbers and a fraction, so that float32 is exact enough. What
differs from Pillow: its sums are of whole numbers, these are float32, so that now and then a value
that lies between two levels is rounded to the other one.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from deit_jax.preprocessing import EvalView, Size

# Of the weights, as in Pillow's Resample.c.
_PRECISION = 2.0**22


def _triangle(x: Array) -> Array:
    return jnp.maximum(1.0 - jnp.abs(x), 0.0)


def _cubic(x: Array) -> Array:
    """Catmull and Rom's, a = -0.5."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return jnp.where(x < 1.0, near, jnp.where(x < 2.0, far, 0.0))


def _lanczos(x: Array) -> Array:
    def sinc(x: Array) -> Array:
        safe = jnp.where(x == 0.0, 1.0, x) * math.pi
        return jnp.where(x == 0.0, 1.0, jnp.sin(safe) / safe)

    return jnp.where(jnp.abs(x) < 3.0, sinc(x) * sinc(x / 3.0), 0.0)


_FILTERS: dict[str, Callable[[Array], Array]] = {
    "bilinear": _triangle,
    "bicubic": _cubic,
    "lanczos": _lanczos,
}


def require_computable(view: EvalView, size: Size) -> None:
    """Refuse what cannot be computed inside of a program.

    Raises:
        ValueError: naming it.
    """
    sides, why = view.sides(size), ""
    if view.interpolation not in _FILTERS:
        why = f"resized by {view.interpolation}; there are {', '.join(_FILTERS)}"
    elif view.fit not in ("cover", "exact"):
        why = f"resized to fit ({view.fit})"
    elif sides[0] < size[0] or sides[1] < size[1]:
        why = f"resized to {sides[0]}x{sides[1]} pixels and filled up to {size[0]}x{size[1]}"
    elif view.fit == "cover" and view.arithmetic == "timm" and size[0] != size[1]:
        why = "resized to sides that are no square, which timm rounds otherwise"
    if why:
        raise ValueError(
            f"Preprocessing cannot be put inside: the weights want images {why}; export without "
            "--preprocess and prepare images outside."
        )


def shown_pixels(
    pixels: UInt8[Array, "batch height width 3"], size: Size, view: EvalView
) -> Float[Array, "batch {size[0]} {size[1]} 3"]:
    """Return whole numbers from 0 to 255: images of one size, resized, and the middle cut out.

    Args:
        pixels: as decoded; height and width may be symbolic.
        size: (height, width) wanted.
        view: how; see `require_computable`.
    """
    height, width = (_number(side) for side in pixels.shape[1:3])
    tall, wide = (_number(side) for side in view.sides(size))
    if view.fit == "cover":
        narrow = width * tall <= height * wide
        tall, wide = (
            jnp.where(narrow, lax.div(wide * height, width), tall),
            jnp.where(narrow, wide, lax.div(tall * width, height)),
        )
    rows = _matrix(pixels.shape[1], (height, tall), size[0], view)
    columns = _matrix(pixels.shape[2], (width, wide), size[1], view)
    # Along rows first, and to whole levels in between, as Pillow does it.
    values = _levels(jnp.einsum("bhwc,ow->bhoc", pixels.astype(jnp.float32), columns))
    return _levels(jnp.einsum("bhoc,ph->bpoc", values, rows))


def _number(side: Any) -> Int[Array, ""]:
    return jnp.asarray(side, jnp.int32)


def _levels(values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.clip(jnp.floor(values + 0.5), 0.0, 255.0)


def _matrix(
    side: Any, lengths: tuple[Array, Array], wanted: int, view: EvalView
) -> Float[Array, "{wanted} side"]:
    """Return the weights of all pixels along a side, for each pixel that is wanted.

    Args:
        side: pixels, which may be symbolic.
        lengths: the same as a number, and what it is resized to.
        wanted: pixels cut out of the middle of that.
        view: filter, and how margins are rounded.
    """
    have, resized = lengths
    place = jnp.arange(wanted, dtype=jnp.int32) + _margin(resized - wanted, view)
    # The centre of each in the image's pixels: (place + 1/2) have / resized.
    twice = (2 * place + 1) * have
    whole = lax.div(twice, jnp.broadcast_to(2 * resized, twice.shape))
    part = (twice - whole * (2 * resized)).astype(jnp.float32) / (2 * resized).astype(jnp.float32)
    steps = (jnp.arange(side, dtype=jnp.int32) - whole[:, None]).astype(jnp.float32)
    stretch = jnp.maximum(have.astype(jnp.float32) / resized.astype(jnp.float32), 1.0)
    weights = _FILTERS[view.interpolation]((steps - part[:, None] + 0.5) / stretch)
    weights = weights / weights.sum(1, keepdims=True)
    return jnp.floor(weights * _PRECISION + 0.5) / _PRECISION


def _margin(spare: Int[Array, ""], view: EvalView) -> Int[Array, ""]:
    """Halve, as `EvalView.margin`: cut off, or a half rounded to the even."""
    half = lax.div(spare, _number(2))
    if view.arithmetic == "transformers":
        return half
    return half + (spare - 2 * half) * (half - 2 * lax.div(half, _number(2)))
