"""The simple random crop of DeiT III: the whole image resized, then moved by a few pixels.

Paper: arXiv 2204.07118, section 3.2 (for ImageNet-21k); reference code: augment.py there.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Int64

from deit_jax.data.resize import Box, Pixels, resize

PADDING: Final = 4


def simple_random_crop(
    pixels: Pixels,
    size: tuple[int, int],
    draws: Sequence[float],
    *,
    out: Pixels | None = None,
) -> Pixels:
    """Resizes (bicubic) to the smallest image that covers `size`, pads by 4, cuts at random.

    For a square size this is torchvision's Resize(side) and RandomCrop(side, padding=4,
    padding_mode="reflect").

    Args:
        pixels: the decoded image.
        size: (height, width) wanted.
        draws: at least two numbers in [0, 1): the place of the crop, downwards and to the right.
        out: contiguous array that takes the result; a new one by default.
    """
    height, width = pixels.shape[:2]
    if width * size[0] <= height * size[1]:
        resized = (int(size[1] * height / width), size[1])
    else:
        resized = (size[0], int(size[0] * width / height))
    rows, columns = (
        _reflected(int(draw * (2 * PADDING + whole - wanted + 1)) - PADDING, wanted, whole)
        for draw, whole, wanted in zip(draws[:2], resized, size, strict=True)
    )
    top, left = rows.min(), columns.min()
    window = Box(top, left, rows.max() + 1 - top, columns.max() + 1 - left)
    cut = resize(pixels, resized, window=window)[np.ix_(rows - top, columns - left)]
    if out is None:
        return cut
    out[:] = cut
    return out


def _reflected(first: int, count: int, whole: int) -> Int64[np.ndarray, "count"]:
    """Numbers of lines from `first` on, where those outside 0 .. whole - 1 are mirrored into it."""
    numbers = np.arange(first, first + count)
    # The outermost line is not repeated.
    numbers %= max(1, 2 * (whole - 1))
    return np.minimum(numbers, max(1, 2 * (whole - 1)) - numbers)
