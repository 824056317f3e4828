"""Where each pixel of a rotated, sheared or translated image comes from.

Pillow works these positions out in float64 (`Geometry.c`). Here every coefficient is the sum of a
multiple of 2^-11, whose products with whole and half pixels are exact in float32, and a small
rest; positions are right to about 1e-8 pixels for images of up to 1,000 pixels a side.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from deit_jax.augment.operations import Kind

COARSE = 2048.0
STEPS = 4096.0
"""Whole and half pixels times multiples of 1 / COARSE are multiples of 1 / STEPS."""
ANGLES_PER_DEGREE = 4


class AffineMap(NamedTuple):
    """Source position of a target position, about an origin: `coarse + fine` holds the matrix.

    Rows are x and y; columns are the factors of the target's x and y, and the shift.
    """

    coarse: Float[Array, "batch 2 3"]
    fine: Float[Array, "batch 2 3"]
    origin: Float[Array, "batch 2"]


class Positions(NamedTuple):
    """Along one axis: the last source pixel before each position, and how far beyond it that is.

    The distance is `beyond + rest`, a multiple of 2^-12 and what remains.
    """

    pixel: Int[Array, "batch height width"]
    beyond: Float[Array, "batch height width"]
    rest: Float[Array, "batch height width"]
    inside: Bool[Array, "batch height width"]


def affine_map(
    kind: Int[Array, " batch"],
    argument: Float[Array, " batch"],
    rest: Float[Array, " batch"],
    height: int,
    width: int,
) -> AffineMap:
    """Return the map from target to source of each geometric operation.

    Args:
        kind: `Kind.ROTATE`, `SHEAR_X`, `SHEAR_Y`, `TRANSLATE_X` or `TRANSLATE_Y`.
        argument: Degrees, slope or pixels.
        rest: What float32 could not hold of the argument.
        height: Of the image.
        width: Of the image.
    """
    zero = jnp.zeros_like(argument)

    def shears_and_shifts(values: Float[Array, " batch"]) -> Float[Array, "batch 6"]:
        order = (None, Kind.SHEAR_X, Kind.TRANSLATE_X, Kind.SHEAR_Y, None, Kind.TRANSLATE_Y)
        return jnp.stack(
            [jnp.where(kind == place, values, 0.0) if place else zero for place in order], -1
        )

    matrix = shears_and_shifts(argument)
    coarse = jnp.round(matrix * COARSE) / COARSE
    turned = kind == Kind.ROTATE
    (cosine, cosine_rest), (sine, sine_rest) = cosine_and_sine(jnp.where(turned, argument, 0.0))
    # Of an image that is not rotated, `turn` is the identity, and shears pivot on the corner.
    turn = jnp.stack([cosine, -sine, zero, sine, cosine, zero], axis=-1)
    turn_rest = jnp.stack([cosine_rest, -sine_rest, zero, sine_rest, cosine_rest, zero], axis=-1)
    fine = turn_rest + (matrix - coarse) + shears_and_shifts(rest)
    centre = jnp.array([width / 2, height / 2], jnp.float32)
    origin = jnp.where(turned[:, None], centre, 0.0)
    return AffineMap((turn + coarse).reshape(-1, 2, 3), fine.reshape(-1, 2, 3), origin)


def cosine_and_sine(
    degrees: Float[Array, " batch"],
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return cosine and sine, each as a multiple of 2^-11 and the rest, to about 1e-9.

    The nearest quarter of a degree comes from a float64 table, and the small angle that is left
    from the first terms of the series.
    """
    whole = jnp.round(degrees * ANGLES_PER_DEGREE)
    index = whole.astype(jnp.int32) % (360 * ANGLES_PER_DEGREE)
    angle = (degrees - whole / ANGLES_PER_DEGREE) * np.float32(np.pi / 180)
    cosine_less_one, sine = -angle * angle / 2, angle - angle * angle * angle / 6
    turns = np.radians(np.arange(360 * ANGLES_PER_DEGREE) / ANGLES_PER_DEGREE)

    def exact(values: np.ndarray) -> tuple[Array, Array]:
        # To 15 digits as in Pillow: the sine of 30 degrees is a half, and a position on the border.
        values = np.round(values, 15)
        coarse = np.round(values * COARSE) / COARSE
        rest = np.float32(values - coarse)
        return jnp.asarray(np.float32(coarse))[index], jnp.asarray(rest)[index]

    cos_coarse, cos_rest = exact(np.cos(turns))
    sin_coarse, sin_rest = exact(np.sin(turns))
    near_cos, near_sin = cos_coarse + cos_rest, sin_coarse + sin_rest
    cos_rest += near_cos * cosine_less_one - near_sin * sine
    sin_rest += near_sin * cosine_less_one + near_cos * sine
    return (cos_coarse, cos_rest), (sin_coarse, sin_rest)


def positions(mapping: AffineMap, height: int, width: int) -> tuple[Positions, Positions]:
    """Return the source column and the source row of the middle of every target pixel."""
    origin = mapping.origin[:, None, None, :]
    x = jnp.arange(width)[None, None, :] + 0.5 - origin[..., 0]
    y = jnp.arange(height)[None, :, None] + 0.5 - origin[..., 1]
    found = []
    for axis, side in enumerate((width, height)):
        coarse = mapping.coarse[:, axis, :, None, None]
        fine = mapping.fine[:, axis, :, None, None]
        # Counted from the middle of the first pixel. `position` is exact.
        position = coarse[:, 0] * x + coarse[:, 1] * y + (coarse[:, 2] + origin[..., axis] - 0.5)
        rest = fine[:, 0] * x + fine[:, 1] * y + fine[:, 2]
        pixel = jnp.floor(position)
        fraction = position - pixel
        step = jnp.floor((fraction + rest) * STEPS) / STEPS
        rest = (fraction - step) + rest
        pixel, step = pixel + jnp.floor(step), step - jnp.floor(step)
        begins = pixel + step + 0.5 >= -rest
        ends = pixel + step - (side - 0.5) < -rest
        found.append(Positions(pixel.astype(jnp.int32), step, rest, begins & ends))
    return found[0], found[1]
