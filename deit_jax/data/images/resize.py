"""Resizing as Pillow does it, bit for bit, by the fast kernel where numba is installed."""

import functools
import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deit_jax.data.images.resize_window import resize_window

_LOG = logging.getLogger("deit_jax")
_LOADING = threading.Lock()

Pixels = UInt8[np.ndarray, "_height _width 3"]

FILTERS: Final = ("bicubic", "bilinear")
"""Those that training chooses from, and that the fast kernel has."""

# Where the whole has more than so many times the pixels that are wanted, the others are not made.
_WASTE: Final = 8


class Box(NamedTuple):
    """A rectangle in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize(
    pixels: Pixels,
    size: tuple[int, int],
    interpolation: str = "bicubic",
    *,
    box: Box | None = None,
    window: Box | None = None,
    out: Pixels | None = None,
) -> Pixels:
    """Cut out a box and resize it with a filter that widens when shrinking (anti-aliasing).

    Args:
        pixels: the image.
        size: (height, width) wanted.
        interpolation: "bicubic", "bilinear", or another of `preprocessing.INTERPOLATIONS`.
        box: what to resize, which is all that the filter sees; the whole image by default.
        window: the part of the result that is wanted, which alone is computed; all by default.
        out: contiguous array that takes the result; a new one by default.

    Returns:
        The result: `out`, if that is given; else maybe a view of `pixels`.
    """
    box = box or Box(0, 0, *pixels.shape[:2])
    window = window or Box(0, 0, *size)
    if (box.height, box.width) == size:
        return deliver(_cut(_cut(pixels, box), window), out)
    # So tall a box Pillow shrinks in the other order of the two directions.
    if box.height > 100 * box.width and box.height > size[0]:
        return deliver(_resize_pillow(_cut(pixels, box), size, interpolation, window), out)
    if interpolation in FILTERS and (kernel := _kernel()):
        result = np.empty((window.height, window.width, 3), np.uint8) if out is None else out
        cubic = interpolation == "bicubic"
        kernel(np.ascontiguousarray(pixels), tuple(box), size, window[:2], cubic, result)
        return result
    # Pillow makes the whole: of 20,000 x 2 pixels 2,560,000 x 256, to keep 224 x 224.
    if size[0] * size[1] > _WASTE * window.height * window.width:
        return deliver(resize_window(_cut(pixels, box), size, window, interpolation), out)
    return deliver(_resize_pillow(_cut(pixels, box), size, interpolation, window), out)


def _cut(pixels: Pixels, box: Box) -> Pixels:
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width]


def deliver(pixels: Pixels, out: Pixels | None) -> Pixels:
    """Return pixels, in `out` if that is given."""
    if out is None:
        return pixels
    out[:] = pixels
    return out


def _resize_pillow(
    pixels: Pixels, size: tuple[int, int], interpolation: str, window: Box
) -> Pixels:
    """Return what the kernel is measured by, and what stands in for it."""
    height, width = size
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling[interpolation.upper()])
    return _cut(np.asarray(image), window)


def _kernel() -> Callable[..., None] | None:
    """Load the compiled kernel when first needed (numba takes 100 MB); None without numba."""
    # Reader threads ask at once, and one of two that import numba together may see half of it.
    with _LOADING:
        return _load_kernel()


@functools.cache
def _load_kernel() -> Callable[..., None] | None:
    try:
        from deit_jax.data.images.resize_kernel import resize_box
    except ModuleNotFoundError:
        return None
    # numba refuses versions of NumPy or Python that it does not know, compilers fail in many ways.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        _LOG.warning("numba cannot be used (%s); Pillow resizes images more slowly.", reason)
        return None
    return resize_box
