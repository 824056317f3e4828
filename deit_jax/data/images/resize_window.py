"""Part of what Pillow's resize would make, without the rest: for images of odd shapes.

Where numba is installed, `resize_kernel` does this for the filters of training, and faster. Both do
as Pillow's Resample.c: two passes, along rows and then along columns, with weights of 22 fractional
bits that come of double precision, and 8 bits after each pass.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

_PRECISION: Final = 22


def resize_window(
    pixels: UInt8[np.ndarray, "height width 3"],
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    interpolation: str,
) -> UInt8[np.ndarray, "window_height window_width 3"]:
    """Resize an image, of which only a window is made: the same bits as of the whole by Pillow.

    Unless the height is over 100 times the width and shrinks: Pillow then does columns first.

    Args:
        pixels: the image.
        size: (height, width) of the whole result.
        window: (top, left, height, width) in it.
        interpolation: any of `preprocessing.INTERPOLATIONS`.
    """
    top, left, height, width = window
    if interpolation == "nearest":
        rows = _nearest(pixels.shape[0], size[0], top, height)
        return pixels[np.ix_(rows, _nearest(pixels.shape[1], size[1], left, width))]
    down = _taps(pixels.shape[0], size[0], top, height, interpolation)
    across = _taps(pixels.shape[1], size[1], left, width, interpolation)
    first, last = down[0].begin, down[-1].begin + len(down[-1].weights)
    narrow = _combine(pixels[first:last].transpose(1, 0, 2), across)
    down = [tap._replace(begin=tap.begin - first) for tap in down]
    return _combine(narrow.transpose(1, 0, 2), down)


def _nearest(size: int, whole: int, first: int, wanted: int) -> Int64[np.ndarray, " wanted"]:
    """Numbers of the lines taken; places are added up one by one, with the roundings of Pillow."""
    step = size / whole
    steps = np.full(first + wanted, step)
    steps[0] = 0.5 * step
    return np.add.accumulate(steps)[first:].astype(np.int64)


class _Taps(NamedTuple):
    """Of which lines a line is made: the first, and what each of them counts."""

    begin: int
    weights: Float64[np.ndarray, " taps"]


def _taps(size: int, whole: int, first: int, wanted: int, interpolation: str) -> list[_Taps]:
    """For `wanted` lines from `first` on, of `whole` that `size` lines become."""
    reach, weight = _FILTERS[interpolation]
    scale = size / whole
    widening = max(scale, 1.0)
    support = reach * widening
    found = []
    for number in range(first, first + wanted):
        centre = (number + 0.5) * scale
        begin, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
        exact = [weight((tap - centre + 0.5) * (1.0 / widening)) for tap in range(begin, end)]
        # Not `sum`, which compensates for roundings that Pillow makes.
        total = functools.reduce(operator.add, exact, 0.0)
        shares = [(one / total if total else one) * (1 << _PRECISION) for one in exact]
        weights = [int(share + math.copysign(0.5, share)) for share in shares]
        found.append(_Taps(begin, np.array(weights, np.float64)))
    return found


def _combine(
    lines: UInt8[np.ndarray, "lines lanes 3"], taps: list[_Taps]
) -> UInt8[np.ndarray, "wanted lanes 3"]:
    """Make weighted sums of lines; of integers below 2^53, so that doubles hold them exactly."""
    sums = np.stack(
        [
            np.tensordot(tap.weights, lines[tap.begin : tap.begin + len(tap.weights)], axes=1)
            for tap in taps
        ]
    )
    half = 1 << (_PRECISION - 1)
    return ((sums.astype(np.int64) + half) >> _PRECISION).clip(0, 255).astype(np.uint8)


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _hamming(x: float) -> float:
    if x == 0.0:
        return 1.0
    x = abs(x) * math.pi
    return math.sin(x) / x * (0.54 + 0.46 * math.cos(x)) if x < math.pi else 0.0


def _cubic(x: float) -> float:
    """Catmull and Rom's (a = -0.5)."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


# How far each reaches, before shrinking widens it.
_FILTERS: Final[dict[str, tuple[float, Callable[[float], float]]]] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _triangle),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _cubic),
    "lanczos": (3.0, _lanczos),
}
