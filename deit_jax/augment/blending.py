"""Blends of an image with a degenerate version of itself (Pillow's `ImageEnhance`)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from deit_jax.augment.operations import Kind
from deit_jax.augment.packing import PackedPixels, join, level_of, pack_pixels, unpack_pixels


def blend(
    start: Int[Array, "*#shape"], end: Int[Array, "*#shape"], factor: Float[Array, "*#shape"]
) -> UInt8[Array, "*shape"]:
    """Return `start + factor * (end - start)`, clipped and cut to whole levels as Pillow does.

    Pillow rounds the product and then the sum to float32. A compiler may fuse the two into one
    rounding, so the product is built from two exact parts: a factor of 15 bits and the remaining
    9, each times a difference of 8 bits. Their sum is the rounded product on every backend.
    """
    difference = (end - start).astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(factor, jnp.uint32) & jnp.uint32(0xFFFFFE00)
    upper = jax.lax.bitcast_convert_type(bits, jnp.float32)
    product = upper * difference + (factor - upper) * difference
    value = start.astype(jnp.float32) + product
    return jnp.clip(value, 0.0, 255.0).astype(jnp.uint8)


def luma(packed: PackedPixels) -> PackedPixels:
    """Return Pillow's grey level, ITU-R 601-2 in 16-bit fixed point (`Convert.c`)."""
    red, green, blue = (level_of(packed, channel) for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def smooth(packed: PackedPixels, channel: int) -> PackedPixels:
    """Return one channel under the 3 x 3 kernel of ones with 5 in the middle, over 13.

    The outermost pixels stay. No multiple of 1/13 lies within 1/26 of a half, so whole numbers
    give the rounding that Pillow obtains with floats (`Filter.c`).
    """
    _, height, width = packed.shape
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    values = level_of(jnp.pad(packed, ((0, 0), (1, 1), (1, 1)), mode="edge"), channel)
    rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    middle = values[:, 1:-1, 1:-1]
    return jnp.where(inner, (2 * (total + 4 * middle) + 13) // 26, middle)


def enhance(
    images: UInt8[Array, "batch height width 3"],
    kind: Int[Array, " batch"],
    factor: Float[Array, " batch"],
) -> UInt8[Array, "batch height width 3"]:
    """Blend with the grey image (`Kind.COLOR`) or with the smoothed one (`Kind.SHARPNESS`)."""
    packed = pack_pixels(images)
    grey = luma(packed)
    colour = (kind == Kind.COLOR)[:, None, None]
    blended = []
    for channel in range(3):
        start = jnp.where(colour, grey, smooth(packed, channel))
        level = blend(start, level_of(packed, channel), factor[:, None, None])
        blended.append(level.astype(jnp.int32))
    return unpack_pixels(join(*blended))
