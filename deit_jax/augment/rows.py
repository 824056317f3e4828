"""The levels of each image in one row, for look-ups: in the order that the compiler finds easy.

Pixel by pixel, as they lie in memory; but on TPUs channel by channel. There the three channels lie
apart, and XLA takes most of a minute of computing to compile each exchange of the two orders.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from deit_jax.devices import platform


def in_rows(values: Shaped[Array, "batch *pixels 3"]) -> Shaped[Array, "batch levels"]:
    """Put everything of an image into one row."""
    apart = jnp.moveaxis(values, -1, 1) if platform() == "tpu" else values
    return apart.reshape(values.shape[0], -1)


def from_rows(rows: Shaped[Array, "batch levels"], shape: Any) -> Shaped[Array, "batch *pixels 3"]:
    """Undo `in_rows`, for values of this shape."""
    if platform() != "tpu":
        return rows.reshape(shape)
    batch, *pixels, channels = shape
    return jnp.moveaxis(rows.reshape(batch, channels, *pixels), 1, -1)


def places_in_row(pixel: Int[Array, "*shape"], count: int) -> Int[Array, "*shape 3"]:
    """Return where the three levels of a pixel are, in the row of an image of `count` pixels."""
    channel = jnp.arange(3)
    if platform() == "tpu":
        return pixel[..., None] + count * channel
    return 3 * pixel[..., None] + channel
