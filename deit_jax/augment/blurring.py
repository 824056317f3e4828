"""Gaussian blur as Pillow does it: three box blurs along rows, then three along columns.

After `BoxBlur.c`, which follows Gwosdek et al., "Theoretical foundations of Gaussian convolution
by extended box filtering" (2011). Weights are 24-bit fixed point, so the pixels are the same.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8, UInt32

PASSES = 3
LARGEST = 2.0
"""Standard deviation, in pixels, up to which five pixels across hold the box."""


def blur(
    images: UInt8[Array, "batch height width 3"], deviation: Float[Array, " batch"]
) -> UInt8[Array, "batch height width 3"]:
    """Blur each image with its own standard deviation in pixels, 0 to `LARGEST`."""
    # Worked out once for an image, not once for a pixel.
    weights = jax.lax.optimization_barrier(box_weights(deviation))
    for axis in (2, 1):
        for _ in range(PASSES):
            images = _box(images, weights, axis)
    return images


def box_weights(
    deviation: Float[Array, " batch"],
) -> tuple[UInt32[Array, " batch"], UInt32[Array, " batch"], UInt32[Array, " batch"]]:
    """Return the weights of the pixel itself and of those one and two away, in 2^-24.

    Every product is rounded before it is added, as in Pillow; the barriers keep a compiler from
    fusing the two.
    """
    rounded = jax.lax.optimization_barrier
    variance = rounded(rounded(deviation * deviation) / PASSES)
    # Box of length L = sqrt(12 v + 1) = 2 (whole + part) + 1 pixels; whole is 0 or 1 here.
    whole = (12.0 * variance + 1.0 >= 9.0).astype(jnp.float32)
    part = (2 * whole + 1) * (whole * (whole + 1) - rounded(3 * variance))
    radius = whole + rounded(part) / (6 * (variance - (whole + 1) * (whole + 1)))
    radius = rounded(radius)
    reach = radius.astype(jnp.uint32)
    full = (jnp.float32(1 << 24) / (radius * 2 + 1)).astype(jnp.uint32)
    edge = (jnp.uint32(1 << 24) - (reach * 2 + 1) * full) // 2
    return full, jnp.where(reach == 0, edge, full), jnp.where(reach == 0, 0, edge)


def _box(
    images: UInt8[Array, "batch height width 3"],
    weights: tuple[UInt32[Array, " batch"], UInt32[Array, " batch"], UInt32[Array, " batch"]],
    axis: int,
) -> UInt8[Array, "batch height width 3"]:
    """One box blur along an axis; beyond the border lies the border's pixel."""
    sides = [(0, 0)] * 4
    sides[axis] = (2, 2)
    padded = jnp.pad(images, sides, mode="edge").astype(jnp.uint32)
    size = images.shape[axis]

    def shifted(offset: int) -> UInt32[Array, "batch height width 3"]:
        return jax.lax.slice_in_dim(padded, 2 + offset, 2 + offset + size, axis=axis)

    own, near, far = (weight[:, None, None, None] for weight in weights)
    total = own * shifted(0) + near * (shifted(-1) + shifted(1)) + far * (shifted(-2) + shifted(2))
    return ((total + (1 << 23)) >> 24).astype(jnp.uint8)
