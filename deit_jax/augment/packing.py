"""The three levels of a pixel as one 32-bit number: one look-up or shift serves all channels."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

PackedPixels = Int[Array, "batch height width"]


def pack_pixels(images: UInt8[Array, "batch height width 3"]) -> PackedPixels:
    """Put red into the lowest eight bits, then green, then blue."""
    four = jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, 1)))
    return jax.lax.bitcast_convert_type(four, jnp.int32)


def join(red: PackedPixels, green: PackedPixels, blue: PackedPixels) -> PackedPixels:
    """Pack three channels, each 0 to 255."""
    return red | green << 8 | blue << 16


def unpack_pixels(packed: PackedPixels) -> UInt8[Array, "batch height width 3"]:
    """Undo `pack_pixels`."""
    return jax.lax.bitcast_convert_type(packed, jnp.uint8)[..., :3]


def level_of(packed: Int[Array, "*shape"], channel: int) -> Int[Array, "*shape"]:
    """Return one channel of packed pixels."""
    return (packed >> (8 * channel)) & 255
