"""Crops against torchvision and timm, bit for bit, and their distribution against torchvision."""

import math

import numpy as np
import pytest
import timm.data.transforms
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from deit_jax.data.draws import crop_draws
from deit_jax.data.images import resize as resize_module
from deit_jax.data.images.crop import (
    CROP_DRAWS,
    evaluation_view,
    random_box,
    random_resized_crop,
    resize,
)
from deit_jax.preprocessing import EvalView

MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
SHAPES = [(375, 500), (500, 375), (64, 64), (33, 47), (1, 1), (7, 400), (301, 200)]


def centre_crop(pixels, size, ratio=0.875):
    return evaluation_view(pixels, size, EvalView.keeping(ratio))


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Scripted:
    """Stands in for the module `random` inside timm: hands out given draws."""

    def __init__(self, draws):
        self.attempts = iter(draws[:20])
        self.places = iter(draws[20:22])

    def uniform(self, low, high):
        return low + (high - low) * next(self.attempts)

    def randint(self, low, high):
        return low + int(next(self.places) * (high - low + 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.5, 0.6), (2.0, 3.0)])
def test_boxes_equal_timm_given_the_same_numbers(monkeypatch, shape, ratio):
    image = Image.new("RGB", shape[::-1])
    crop = timm.data.transforms.RandomResizedCropAndInterpolation
    for index in range(200):
        draws = crop_draws(0, 0, index, 0, CROP_DRAWS)
        monkeypatch.setattr(timm.data.transforms, "random", Scripted(draws))
        expected = crop.get_params(image, (0.08, 1.0), ratio)
        box = random_box(*shape, draws, (0.08, 1.0), ratio)
        # timm does not guard against boxes of no pixels (torchvision does).
        if min(expected[2:]) > 0:
            assert tuple(box) == expected
        assert 0 <= box.top <= shape[0] - box.height
        assert 0 <= box.left <= shape[1] - box.width
        assert min(box.height, box.width) > 0


def distance(a, b):
    """Two-sample Kolmogorov-Smirnov distance."""
    both = np.concatenate([a, b])
    a, b = np.sort(a), np.sort(b)
    share = [np.searchsorted(x, both, side="right") / len(x) for x in (a, b)]
    return np.abs(share[0] - share[1]).max()


def statistics(boxes, height, width):
    top, left, box_height, box_width = np.array(boxes, float).T
    return {
        "area": box_height * box_width / (height * width),
        "aspect": box_width / box_height,
        "top": top / height,
        "left": left / width,
        "bottom": (top + box_height) / height,
    }


def test_boxes_are_distributed_as_torchvisions():
    # n = 10,000 on each side: the 0.001 level of the distance is 1.95 * sqrt(2 / n) = 0.0276, and
    # a true distance of 0.05 is found with a probability above 0.99. The two controls, each a
    # plausible mistake, show that the test can fail.
    n, height, width = 10_000, 300, 400
    limit = 1.95 * math.sqrt(2 / n)
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = statistics(
        [
            transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(n)
        ],
        height,
        width,
    )
    draws = [crop_draws(0, 0, index, 0, CROP_DRAWS) for index in range(n)]
    ours = statistics([random_box(height, width, d) for d in draws], height, width)
    for name in theirs:
        assert distance(ours[name], theirs[name]) < limit, name

    other_scale = statistics(
        [random_box(height, width, d, scale=(0.2, 1.0)) for d in draws], height, width
    )
    assert distance(other_scale["area"], theirs["area"]) > limit
    # Uniform in the ratio instead of in its logarithm.
    log = math.log(16 / 9)
    linear = [
        [
            math.log((3 / 4 + (4 / 3 - 3 / 4) * u) / (3 / 4)) / log if i % 2 else u
            for i, u in enumerate(d)
        ]
        for d in draws
    ]
    other_ratio = statistics([random_box(height, width, d) for d in linear], height, width)
    assert distance(other_ratio["aspect"], theirs["aspect"]) > limit


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(224, 224), (16, 16), (96, 160)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_training_crops_equal_torchvision_given_the_same_box(shape, size, interpolation):
    pixels = picture(*shape)
    for index in range(3):
        draws = crop_draws(3, 1, index, 2, CROP_DRAWS)
        box = random_box(*shape, draws)
        ours = random_resized_crop(pixels, size, draws, interpolation=interpolation)
        theirs = reference.resized_crop(
            Image.fromarray(pixels), *box, list(size), MODES[interpolation]
        )
        np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_random_interpolation_takes_either_half_of_the_time():
    pixels, size = picture(40, 40), (16, 16)
    chosen = []
    for index in range(400):
        draws = crop_draws(0, 0, index, 0, CROP_DRAWS)
        either = [
            random_resized_crop(pixels, size, draws, interpolation=name)
            for name in ("bilinear", "bicubic")
        ]
        mixed = random_resized_crop(pixels, size, draws, interpolation="random")
        chosen.append([np.array_equal(mixed, one) for one in either].index(True))
    # Binomial(400, 1/2): 200 +- 40 is four standard deviations.
    assert 160 < sum(chosen) < 240


@pytest.mark.parametrize("shape", [*SHAPES, (224, 224), (256, 256), (438, 500), (3, 2)])
@pytest.mark.parametrize(
    ("size", "crop_ratio", "resized"),
    [(224, 0.875, 256), (384, 0.875, 438), (224, 0.9, 248), (224, 1.0, 224), (16, 1.0, 16)],
)
def test_evaluation_view_equals_torchvision(shape, size, crop_ratio, resized):
    assert int(size / crop_ratio) == resized
    pixels = picture(*shape)
    view = transforms.Compose(
        [transforms.Resize(resized, InterpolationMode.BICUBIC), transforms.CenterCrop(size)]
    )
    theirs = np.asarray(view(Image.fromarray(pixels)))
    np.testing.assert_array_equal(centre_crop(pixels, (size, size), crop_ratio), theirs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(96, 160), (160, 96), (12, 48)])
def test_evaluation_view_of_other_proportions_is_the_centre_of_the_smallest_cover(shape, size):
    pixels = picture(*shape)
    cover = [int(side / 0.875) for side in size]
    scale = max(cover[0] / shape[0], cover[1] / shape[1])
    resized = [max(c, int(s * scale + 1e-9)) for c, s in zip(cover, shape, strict=True)]
    whole = resize(pixels, tuple(resized))
    theirs = np.asarray(transforms.CenterCrop(size)(Image.fromarray(whole)))
    np.testing.assert_array_equal(centre_crop(pixels, size), theirs)


def test_an_image_of_the_wanted_size_passes_unchanged():
    pixels = picture(16, 16)
    assert np.shares_memory(resize(pixels, (16, 16)), pixels)
    np.testing.assert_array_equal(centre_crop(pixels, (16, 16), 1.0), pixels)


@pytest.fixture(params=["kernel", "Pillow"])
def either_resize(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr(resize_module, "_kernel", lambda: None)
    else:
        pytest.importorskip("numba")


@pytest.mark.usefixtures("either_resize")
@pytest.mark.parametrize(
    "shape", [(2, 900), (900, 2), (1, 3000), (3000, 1), (40, 2500), (2500, 40)]
)
def test_thin_images_equal_torchvision_although_little_of_them_is_made(shape):
    # Enlarged and shrunk; whole they are up to 36 x 108,000 pixels, of which 32 x 32 are kept.
    pixels = picture(*shape)
    resized = transforms.Resize(36, InterpolationMode.BICUBIC)(Image.fromarray(pixels))
    theirs = np.asarray(transforms.CenterCrop(32)(resized))
    np.testing.assert_array_equal(centre_crop(pixels, (32, 32), 32 / 36), theirs)


@pytest.mark.usefixtures("either_resize")
@pytest.mark.parametrize("tall", [False, True])
def test_the_view_of_a_thread_of_pixels_equals_that_of_its_centre(tall):
    # Whole it would have 256 x 2,560,000,000 pixels. As 256 is a power of two no rounding depends
    # on the length, so the centre alone is an oracle.
    thread = picture(1, 10_000_000)
    centre = thread[:, 4_999_980:5_000_020]
    if tall:
        thread, centre = thread.transpose(1, 0, 2), centre.transpose(1, 0, 2)
    view = transforms.Compose(
        [transforms.Resize(256, InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    theirs = np.asarray(view(Image.fromarray(np.ascontiguousarray(centre))))
    np.testing.assert_array_equal(centre_crop(thread, (224, 224)), theirs)
