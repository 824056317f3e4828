"""From decoded pixels to a fixed size: random-resized crop for training, centre crop to evaluate.

Both reproduce what torchvision and timm do with Pillow images, bit for bit given the same box.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from deit_jax.data.images.resize import Box, Pixels, resize
from deit_jax.preprocessing import EvalView

_ATTEMPTS: Final = 10
# Two for each attempt, two for the place of the box, one for a random interpolation.
CROP_DRAWS: Final = 2 * _ATTEMPTS + 3


def random_box(
    height: int,
    width: int,
    draws: Sequence[float],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draw the box of a random-resized crop, distributed as in torchvision and timm.

    The share of the area is uniform in `scale`, the logarithm of width / height uniform in the
    logarithm of `ratio`; after ten boxes that do not fit, the largest central box within `ratio`.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        draws: at least `CROP_DRAWS` - 1 numbers in [0, 1).
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for attempt in range(_ATTEMPTS):
        share = scale[0] + (scale[1] - scale[0]) * draws[2 * attempt]
        aspect = math.exp(low + (high - low) * draws[2 * attempt + 1])
        area = share * height * width
        box_width = round(math.sqrt(area * aspect))
        box_height = round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            down, right = draws[2 * _ATTEMPTS], draws[2 * _ATTEMPTS + 1]
            top = int(down * (height - box_height + 1))
            left = int(right * (width - box_width + 1))
            return Box(top, left, box_height, box_width)
    box_height = min(height, max(1, round(width / ratio[0])))
    box_width = min(width, max(1, round(height * ratio[1])))
    return Box((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)


def random_resized_crop(
    pixels: Pixels,
    size: tuple[int, int],
    draws: Sequence[float],
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bicubic",
    out: Pixels | None = None,
) -> Pixels:
    """Cut a random box (`random_box`) and resize it to `size`.

    Args:
        pixels: the decoded image.
        size: (height, width) wanted.
        draws: `CROP_DRAWS` numbers in [0, 1).
        scale: smallest and largest share of the area.
        ratio: smallest and largest width / height.
        interpolation: "bicubic", "bilinear", or "random" for either with equal probability (as
            timm's option of that name).
        out: contiguous array that takes the result; a new one by default.
    """
    height, width = pixels.shape[:2]
    box = random_box(height, width, draws, scale, ratio)
    if interpolation == "random":
        interpolation = "bilinear" if draws[-1] < 0.5 else "bicubic"
    return resize(pixels, size, interpolation, box=box, out=out)


def evaluation_view(pixels: Pixels, size: tuple[int, int], view: EvalView) -> Pixels:
    """Show an image as weights want it: resized, filled up where it is too small, cut out.

    `EvalView.keeping(0.875)` is the reference's: for a square size torchvision's Resize(int(size /
    0.875)), bicubic, and CenterCrop(size), so 224 -> 256 -> 224 and 384 -> 438 -> 384.

    Args:
        pixels: the decoded image.
        size: (height, width) wanted.
        view: how it is resized and cut.
    """
    height, width = pixels.shape[:2]
    resized = view.resized((height, width), size)
    # Along a side that stays shorter than wanted nothing is cut off.
    top, left = (
        view.margin(have, want) if have > want else 0
        for have, want in zip(resized, size, strict=True)
    )
    window = Box(top, left, *map(min, resized, size))
    return _filled(resize(pixels, resized, view.interpolation, window=window), size, view.fill)


def _filled(pixels: Pixels, size: tuple[int, int], fill: tuple[int, int, int]) -> Pixels:
    """Add as much on all sides as is missing; an odd pixel goes to the end."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = fill
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    return canvas
