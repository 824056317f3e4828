"""The simple random crop beside torchvision's, given the same place."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from deit_jax.data.images.simple_crop import PADDING, _span, simple_random_crop


@pytest.mark.parametrize("shape", [(50, 70), (70, 50), (33, 33), (20, 61), (2, 700), (900, 1)])
@pytest.mark.parametrize("draws", [(0.0, 0.0), (0.999999, 0.999999), (0.3, 0.7)])
def test_equals_torchvision(shape, draws):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    side = 32
    image = F.resize(Image.fromarray(pixels), side, InterpolationMode.BICUBIC)
    image = F.pad(image, [4], padding_mode="reflect")
    top = int(draws[0] * (image.height - side + 1))
    left = int(draws[1] * (image.width - side + 1))
    expected = np.asarray(F.crop(image, top, left, side, side))
    ours = simple_random_crop(pixels, (side, side), draws)
    np.testing.assert_array_equal(ours, expected)
    out = np.empty((side, side, 3), np.uint8)
    assert simple_random_crop(pixels, (side, side), draws, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_every_place_is_drawn_and_sizes_need_not_be_square():
    pixels = np.arange(24 * 40 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 40, 3)
    draws = np.random.default_rng(1).random((2000, 2))
    corners = {simple_random_crop(pixels, (24, 40), d).tobytes() for d in draws}
    # Nine offsets of both directions; nothing is resized.
    assert len(corners) == 81
    assert simple_random_crop(pixels, (48, 16), (0.5, 0.5)).shape == (48, 16, 3)


@pytest.mark.parametrize("whole", [1, 2, 3, 5, 20])
def test_spans_hold_the_lines_of_numpys_reflection(whole):
    padded = np.pad(np.arange(whole), PADDING, mode="reflect")
    for wanted in range(1, whole + 1):
        for first in range(-PADDING, whole + PADDING - wanted + 1):
            start, count, padding, skipped = _span(first, wanted, whole)
            lines = np.pad(np.arange(start, start + count), padding, mode="reflect")
            expected = padded[first + PADDING :][:wanted]
            np.testing.assert_array_equal(lines[skipped : skipped + wanted], expected)
