"""The simple random crop of DeiT III: the whole image resized, then moved by a few pixels.

Paper: arXiv 2204.07118, section 3.2 (for ImageNet-21k); reference code: augment.py there.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from deit_jax.data.images.resize import Box, Pixels, deliver, resize

PADDING: Final = 4


def simple_random_crop(
    pixels: Pixels,
    size: tuple[int, int],
    draws: Sequence[float],
    *,
    out: Pixels | None = None,
) -> Pixels:
    """Resize (bicubic) to the smallest image that covers `size`, pad by 4, cut at random.

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
    down, across = (
        _span(int(draw * (2 * PADDING + whole - wanted + 1)) - PADDING, wanted, whole)
        for draw, whole, wanted in zip(draws[:2], resized, size, strict=True)
    )
    window = Box(down.start, across.start, down.lines, across.lines)
    padded = np.pad(
        resize(pixels, resized, window=window), (down.padding, across.padding, (0, 0)), "reflect"
    )
    cut = padded[down.skipped : down.skipped + size[0], across.skipped : across.skipped + size[1]]
    return deliver(cut, out)


class _Span(NamedTuple):
    """The lines of an image that a crop is made of, and what is added before and behind them.

    Attributes:
        start, lines: where they begin, and how many they are.
        padding: how many are mirrored at either end.
        skipped: of all these, those before the crop.
    """

    start: int
    lines: int
    padding: tuple[int, int]
    skipped: int


def _span(first: int, wanted: int, whole: int) -> _Span:
    """Of `whole` lines that are mirrored at both ends, what `wanted` from `first` on consist of."""
    before, behind = max(0, -first), max(0, first + wanted - whole)
    # In a small crop some of the lines that are mirrored may lie outside of it.
    start = max(0, min(first, whole - 1 - behind))
    stop = min(whole, max(first + wanted, before + 1))
    return _Span(start, stop - start, (before, behind), first - (start - before))
