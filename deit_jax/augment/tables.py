"""Operations that replace each level of a channel by another: one 256-entry table per channel.

Eight operations, contrast and brightness among them, become the same single look-up. Only three
need to see the image to make their table (Pillow's `ImageOps`, `ImageEnhance`).
"""

from functools import cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from deit_jax.augment.blending import blend, luma
from deit_jax.augment.operations import Kind
from deit_jax.augment.packing import pack_pixels
from deit_jax.augment.rows import from_rows, in_rows


def look_up(
    images: UInt8[Array, "batch height width 3"], tables: UInt8[Array, "batch 3 256"]
) -> UInt8[Array, "batch height width 3"]:
    """Replace every level by its entry in the table of its image and channel."""
    batch = images.shape[0]
    entries = in_rows(images.astype(jnp.int32) + jnp.arange(3) * 256)
    found = jnp.take_along_axis(
        tables.reshape(batch, -1), entries, axis=1, mode="promise_in_bounds"
    )
    return from_rows(found, images.shape)


def plain_tables(
    kind: Int[Array, " batch"], argument: Float[Array, " batch"]
) -> UInt8[Array, "batch 3 256"]:
    """Return the tables of the operations that need not see the image; identity for the others."""
    level = jnp.arange(256, dtype=jnp.int32)[None, :]
    whole = argument.astype(jnp.int32)[:, None]
    dropped = jnp.clip(8 - whole, 0, 8)
    tables = {
        Kind.INVERT: 255 - level,
        Kind.POSTERIZE: (level >> dropped) << dropped,
        Kind.SOLARIZE: jnp.where(level < whole, level, 255 - level),
        Kind.SOLARIZE_ADD: jnp.where(level < 128, jnp.minimum(255, level + whole), level),
        Kind.BRIGHTNESS: blend(jnp.zeros_like(level), level, argument[:, None]),
    }
    chosen = jnp.broadcast_to(level, (kind.shape[0], 256))
    for operation, table in tables.items():
        chosen = jnp.where(kind[:, None] == operation, table, chosen)
    return jnp.repeat(chosen.astype(jnp.uint8)[:, None, :], 3, axis=1)


def statistics_tables(
    _: UInt8[Array, "batch 3 256"],
    images: UInt8[Array, "batch height width 3"],
    kind: Int[Array, " batch"],
    argument: Float[Array, " batch"],
) -> UInt8[Array, "batch 3 256"]:
    """Return the tables of autocontrast, equalise and contrast."""
    counts = histogram(images)
    kind = kind[:, None, None]
    stretched = jnp.where(kind == Kind.EQUALIZE, equalize_table(counts), autocontrast_table(counts))
    contrast = contrast_table(images, argument)[:, None, :]
    return jnp.where(kind == Kind.CONTRAST, contrast, stretched)


def histogram(images: UInt8[Array, "batch height width 3"]) -> Int[Array, "batch 3 256"]:
    """Count the levels of each channel of each image."""
    batch = images.shape[0]
    offsets = 256 * (3 * jnp.arange(batch)[:, None, None, None] + jnp.arange(3))
    bins = in_rows(images.astype(jnp.int32) + offsets).reshape(-1)
    counts = jnp.zeros(batch * 3 * 256, jnp.int32).at[bins].add(1, mode="promise_in_bounds")
    return counts.reshape(batch, 3, 256)


def autocontrast_table(counts: Int[Array, "batch 3 256"]) -> UInt8[Array, "batch 3 256"]:
    """Stretch each channel to the full range, after `ImageOps.autocontrast`."""
    darkest = jnp.argmax(counts > 0, axis=-1)
    brightest = 255 - jnp.argmax(counts[..., ::-1] > 0, axis=-1)
    level = jnp.arange(256)
    span = jnp.maximum(brightest - darkest, 1)[..., None]
    stretched = jnp.clip(255 * (level - darkest[..., None]) // span, 0, 255)
    stretched = stretched - _falls_short(darkest, brightest)
    return jnp.where((brightest > darkest)[..., None], stretched, level).astype(jnp.uint8)


def equalize_table(counts: Int[Array, "batch 3 256"]) -> UInt8[Array, "batch 3 256"]:
    """Flatten the histogram of each channel, after `ImageOps.equalize`."""
    level = jnp.arange(256)
    brightest = 255 - jnp.argmax(counts[..., ::-1] > 0, axis=-1)
    last = jnp.take_along_axis(counts, brightest[..., None], axis=-1)
    step = (jnp.sum(counts, axis=-1, keepdims=True) - last) // 255
    below = jnp.cumsum(counts, axis=-1) - counts
    flattened = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, flattened, level).astype(jnp.uint8)


def contrast_table(
    images: UInt8[Array, "batch height width 3"], factor: Float[Array, " batch"]
) -> UInt8[Array, "batch 256"]:
    """Blend with the rounded mean grey level, after `ImageEnhance.Contrast`."""
    pixels = images.shape[1] * images.shape[2]
    mean = (jnp.sum(luma(pack_pixels(images)), axis=(1, 2)) + pixels // 2) // pixels
    level = jnp.arange(256, dtype=jnp.int32)[None, :]
    return blend(jnp.broadcast_to(mean[:, None], (len(mean), 256)), level, factor[:, None])


def _falls_short(
    darkest: Int[Array, "batch 3"], brightest: Int[Array, "batch 3"]
) -> Int[Array, "batch 3 256"]:
    """1 where Pillow's autocontrast gives one level less than whole-number arithmetic.

    Pillow multiplies by a rounded float64 scale, and where the exact result is a whole number the
    rounding error decides whether it is reached.
    """
    rows, bits = _short_levels()
    packed = jnp.asarray(bits)[jnp.asarray(rows)[256 * darkest + brightest].astype(jnp.int32)]
    unpacked = (packed[..., None] >> jnp.arange(7, -1, -1, dtype=jnp.uint8)) & 1
    return unpacked.reshape(*darkest.shape, 256).astype(jnp.int32)


@cache
def _short_levels() -> tuple[np.ndarray, np.ndarray]:
    """Where autocontrast falls short: the row of each (darkest, brightest), and 256 bits a row.

    12,094 of the 2.8 million combinations do; most pairs of ends share the row without any.
    """
    brightest, level = np.arange(256)[:, None], np.arange(256)[None, :]
    packed = []
    for darkest in range(256):
        span = np.maximum(brightest - darkest, 1)
        scale = 255.0 / span
        floating = (level * scale + -darkest * scale).astype(np.int64)
        within = (darkest <= level) & (level <= brightest) & (darkest < brightest)
        short = within & (floating < 255 * (level - darkest) // span)
        packed.append(np.packbits(short, axis=-1))
    bits, rows = np.unique(np.concatenate(packed), axis=0, return_inverse=True)
    return rows.reshape(-1).astype(np.uint16), bits


def is_any(kind: Int[Array, " batch"], kinds: tuple[Kind, ...]) -> Bool[Array, " batch"]:
    """Return whether each image's operation is one of the given kinds."""
    return jnp.isin(kind, jnp.array([int(one) for one in kinds]))
