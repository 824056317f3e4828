"""Random erasing (arXiv 1708.04896) of normalised images, after timm's `data/random_erasing.py`."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from deit_jax.augment.choices import Boxes
from deit_jax.augment.rows import from_rows, in_rows, places_in_row
from deit_jax.augment.selection import update_selected
from deit_jax.schema.images import AugmentOptions


def erase(
    images: Float[Array, "batch height width 3"],
    boxes: Boxes,
    keys: Key[Array, " batch"],
    options: AugmentOptions,
) -> Float[Array, "batch height width 3"]:
    """Fill the boxes of each image with noise, one after the other."""
    _, height, width, _ = images.shape

    def fill(
        images: Float[Array, "chunk height width 3"], boxes: Boxes, keys: Key[Array, " chunk"]
    ) -> Float[Array, "chunk height width 3"]:
        for number in range(options.erasing_count):
            noise = box_noise(keys, number, options, height, width)
            top, left, tall, wide = (side[:, number, None, None] for side in boxes)
            row = jnp.arange(height)[None, :, None] - top
            column = jnp.arange(width)[None, None, :] - left
            within = (row >= 0) & (row < tall) & (column >= 0) & (column < wide)
            pixel = jnp.where(within, row * wide + column, 0) % noise.shape[1]
            entries = in_rows(places_in_row(pixel, noise.shape[1]))
            found = jnp.take_along_axis(in_rows(noise), entries, axis=1, mode="promise_in_bounds")
            images = jnp.where(within[..., None], from_rows(found, images.shape), images)
        return images

    def fill_rows(images: Array, top: Array, left: Array, *rest: Array) -> Array:
        return fill(images, Boxes(top, left, *rest[:2]), rest[2])

    return update_selected(images, jnp.any(boxes.height > 0, axis=1), fill_rows, *boxes, keys)


def box_noise(
    keys: Key[Array, " batch"], number: int, options: AugmentOptions, height: int, width: int
) -> Float[Array, "batch pixels 3"]:
    """Return what fills box `number` of each image, row by row of the box.

    Mode "pixel" draws as many pixels as the largest box can have, the other modes one.
    """
    if options.erasing_mode == "const":
        return jnp.zeros((keys.shape[0], 1, 3))
    pixels = largest_box(options, height, width) if options.erasing_mode == "pixel" else 1

    def one(key: Array) -> Array:
        return jax.random.normal(jax.random.fold_in(key, number), (pixels, 3))

    return jax.vmap(one)(keys)


def largest_box(options: AugmentOptions, height: int, width: int) -> int:
    """Return the number of pixels that no drawn box exceeds, its sides being rounded."""
    area = options.erasing_area[1] * height * width
    stretch = math.sqrt(1 / options.erasing_aspect)
    rounding = 0.5 * math.sqrt(area) * (stretch + 1 / stretch) + 1
    return min(math.ceil(area + rounding), height * width)


def box_slices(boxes: Boxes, image: int) -> list[tuple[int, slice, slice]]:
    """Return number, rows and columns of each box of one image, for use outside jit."""
    found = []
    for number in range(boxes.top.shape[1]):
        top, left, tall, wide = (int(side[image, number]) for side in boxes)
        if tall:
            found.append((number, slice(top, top + tall), slice(left, left + wide)))
    return found
