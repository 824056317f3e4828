"""The geometric operations as one warp, after Pillow's bicubic and bilinear `Geometry.c`.

Pillow interpolates in float64 and cuts the result to whole levels. Here the arithmetic is float32
on differences from the nearest pixel. Along a line, whole multiples of 2^-12 are kept apart and
summed exactly, which leaves an error of about 3e-8 levels; a rotation has about 1e-5 where
contrast is highest. Only a value that close to a whole number comes out one level off.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from deit_jax.augment.geometry import STEPS, affine_map, positions
from deit_jax.augment.operations import Kind
from deit_jax.augment.packing import PackedPixels, join, level_of, pack_pixels, unpack_pixels

ChannelValues = Float[Array, "batch height width"]


def warp(
    images: UInt8[Array, "batch height width 3"],
    kind: Int[Array, " batch"],
    argument: Float[Array, " batch"],
    rest: Float[Array, " batch"],
    bicubic: Bool[Array, " batch"],
    *,
    fill: tuple[int, int, int],
    interpolation: str,
    along_lines: bool,
) -> UInt8[Array, "batch height width 3"]:
    """Rotate, shear or translate each image.

    Args:
        images: Images of one size.
        kind: `Kind.ROTATE`, `SHEAR_X`, `SHEAR_Y`, `TRANSLATE_X` or `TRANSLATE_Y`.
        argument: Degrees, slope or pixels.
        rest: What float32 could not hold of the argument.
        bicubic: Whether to interpolate cubically; read when `interpolation` is "random".
        fill: Colour of positions that lie outside the source.
        interpolation: "bicubic", "bilinear" or "random".
        along_lines: The kinds are shears and translations only. They move pixels along rows or
            along columns, so 4 source pixels serve instead of 16.
    """
    _, height, width, _ = images.shape
    # Worked out once for an image, not once for a pixel.
    mapping = jax.lax.optimization_barrier(affine_map(kind, argument, rest, height, width))
    column, row = positions(mapping, height, width)
    inside = column.inside & row.inside
    stride = width + 4
    padded = jnp.pad(pack_pixels(images), ((0, 0), (2, 2), (2, 2)), mode="edge")
    # Index of the first of the 4 x 4 pixels around the position, in the padded image.
    corner = jnp.where(inside, (row.pixel + 1) * stride + column.pixel + 1, 0)
    # Written out once: up to sixteen look-ups share them.
    padded, corner = jax.lax.optimization_barrier((padded, corner))
    padded = padded.reshape(padded.shape[0], -1)

    def source(offset: int | Int[Array, "batch 1 1"]) -> PackedPixels:
        index = (corner + offset).reshape(corner.shape[0], -1)
        found = jnp.take_along_axis(padded, index, axis=1, mode="promise_in_bounds")
        return found.reshape(corner.shape)

    smooth = bicubic[:, None, None] if interpolation == "random" else interpolation == "bicubic"
    if along_lines:
        horizontal = ((kind == Kind.SHEAR_X) | (kind == Kind.TRANSLATE_X))[:, None, None]
        step, aside = jnp.where(horizontal, 1, stride), jnp.where(horizontal, stride, 1)
        line = [source(aside + k * step) for k in range(4)]
        beyond = jnp.where(horizontal, column.beyond, row.beyond)
        left_over = jnp.where(horizontal, column.rest, row.rest)
        levels = line_levels(line, beyond, left_over, smooth)
    else:
        square = [[source(j * stride + i) for i in range(4)] for j in range(4)]
        right, down = column.beyond + column.rest, row.beyond + row.rest
        levels = square_levels(square, right, down, smooth)
    packed = join(*(jnp.clip(level, 0, 255) for level in levels))
    return unpack_pixels(jnp.where(inside, packed, fill[0] | fill[1] << 8 | fill[2] << 16))


def line_levels(
    line: list[PackedPixels],
    beyond: ChannelValues,
    rest: ChannelValues,
    bicubic: bool | Bool[Array, "batch 1 1"],
) -> list[PackedPixels]:
    """Interpolate each channel between the middle two of four packed pixels.

    With a distance of d, the powers of d are taken apart into multiples of 2^-12 and rests. A
    level is a sum of small whole numbers times powers of d: exact, plus a sum of rests.
    """
    powers = [(beyond, rest)]
    for _ in range(2):
        upper, lower = powers[-1]
        exact = upper * beyond
        cut = jnp.floor(exact * STEPS) / STEPS
        powers.append((cut, (exact - cut) + (upper * rest + lower * (beyond + rest))))
    levels = []
    for channel in range(3):
        middle = level_of(line[1], channel)
        exact = small = jnp.zeros_like(beyond)
        factors = cubic_factors(levels_above(line, middle, channel), bicubic)
        for factor, (upper, lower) in zip(factors, powers, strict=False):
            exact, small = exact + factor * upper, small + factor * lower
        whole = jnp.floor(exact)
        whole += jnp.floor((exact - whole) + small)
        levels.append(middle + whole.astype(jnp.int32))
    return levels


def square_levels(
    square: list[list[PackedPixels]],
    right: ChannelValues,
    down: ChannelValues,
    bicubic: bool | Bool[Array, "batch 1 1"],
) -> list[PackedPixels]:
    """Interpolate each channel of 4 x 4 packed pixels: along the rows, then between them."""

    def between(values: list[ChannelValues], distance: ChannelValues) -> ChannelValues:
        value: ChannelValues = jnp.zeros_like(distance)
        for factor in reversed(cubic_factors(values, bicubic)):
            value = distance * (factor + value)
        return values[1] + value

    levels = []
    for channel in range(3):
        middle = level_of(square[1][1], channel)
        rows = [between(levels_above(row, middle, channel), right) for row in square]
        levels.append(middle + jnp.floor(between(rows, down)).astype(jnp.int32))
    return levels


def cubic_factors(
    values: list[ChannelValues], bicubic: bool | Bool[Array, "batch 1 1"]
) -> list[ChannelValues]:
    """Return what multiplies d, d^2 and d^3 between the second and the third of four values.

    Pillow's cubic has a = -1. Linear interpolation has the first factor only.
    """
    first, second, third, fourth = values
    linear = third - second
    if bicubic is False:
        return [linear]
    factors = [
        third - first,
        2 * (first - second) + third - fourth,
        second - first - third + fourth,
    ]
    if bicubic is True:
        return factors
    straight = [linear, jnp.zeros_like(linear), jnp.zeros_like(linear)]
    return [jnp.where(bicubic, curve, line) for curve, line in zip(factors, straight, strict=True)]


def levels_above(
    packed: list[PackedPixels], middle: PackedPixels, channel: int
) -> list[ChannelValues]:
    """Return how far one channel of packed pixels lies above `middle`."""
    return [(level_of(pixels, channel) - middle).astype(jnp.float32) for pixels in packed]
