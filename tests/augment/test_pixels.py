"""Every operation against the functions that timm calls on Pillow images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFilter
from timm.data import auto_augment as timm_augment

from benchmarks.pillow_augmentation import operate
from deit_jax.augment.apply import apply_operations
from deit_jax.augment.choices import Operations
from deit_jax.augment.geometry import cosine_and_sine
from deit_jax.augment.operations import LINE_KINDS, Kind
from deit_jax.augment.selection import in_rounds, one_by_one
from deit_jax.augment.tables import autocontrast_table

FILL = (124, 116, 104)
GEOMETRIC = (*LINE_KINDS, Kind.ROTATE)
ALL = [kind for kind in Kind if kind != Kind.NONE]

# What timm calls for each primitive, given the argument that its level function returns.
TIMM = {
    Kind.AUTOCONTRAST: timm_augment.auto_contrast,
    Kind.EQUALIZE: timm_augment.equalize,
    Kind.INVERT: timm_augment.invert,
    Kind.POSTERIZE: timm_augment.posterize,
    Kind.SOLARIZE: timm_augment.solarize,
    Kind.SOLARIZE_ADD: timm_augment.solarize_add,
    Kind.CONTRAST: timm_augment.contrast,
    Kind.BRIGHTNESS: timm_augment.brightness,
    Kind.COLOR: timm_augment.color,
    Kind.SHARPNESS: timm_augment.sharpness,
    Kind.ROTATE: timm_augment.rotate,
    Kind.SHEAR_X: timm_augment.shear_x,
    Kind.SHEAR_Y: timm_augment.shear_y,
    Kind.TRANSLATE_X: timm_augment.translate_x_abs,
    Kind.TRANSLATE_Y: timm_augment.translate_y_abs,
    Kind.BLUR: timm_augment.gaussian_blur,
}
PLAIN = (Kind.AUTOCONTRAST, Kind.EQUALIZE, Kind.INVERT)
WHOLE = (Kind.POSTERIZE, Kind.SOLARIZE, Kind.SOLARIZE_ADD)


def arguments_of(kind, count, height, width, generator):
    """Arguments beyond what any published policy reaches, with the ends and special values."""
    low, high, special = {
        Kind.POSTERIZE: (0, 8, (0, 1, 4, 8)),
        Kind.SOLARIZE: (0, 256, (0, 26, 128, 255, 256)),
        Kind.SOLARIZE_ADD: (0, 128, (0, 99, 128)),
        Kind.ROTATE: (-60.0, 60.0, (0, 27, -30, -0.125)),
        Kind.SHEAR_X: (-0.6, 0.6, (0, 0.27, -0.3, 0.12)),
        Kind.SHEAR_Y: (-0.6, 0.6, (0, 0.27, -0.3, 0.12)),
        Kind.TRANSLATE_X: (-0.6 * width, 0.6 * width, (0, 0.405 * width, 3, -0.5)),
        Kind.TRANSLATE_Y: (-0.6 * height, 0.6 * height, (0, 0.405 * height, 3, -0.5)),
        Kind.BLUR: (0.05, 2.0, (0.1, 1.4142135, 2.0)),
    }.get(kind, (0.0, 2.0, (0, 1, 0.1, 1.9, 1.72)))
    drawn = generator.uniform(low, high, count)
    drawn[: min(count, len(special))] = special[: min(count, len(special))]
    if kind in WHOLE:
        drawn = np.floor(drawn)
    return drawn.astype(np.float32)


def expected_pixels(image, kind, argument, bicubic):
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    values = () if kind in PLAIN else (int(argument) if kind in WHOLE else float(argument),)
    pixels = TIMM[kind](Image.fromarray(image), *values, fillcolor=FILL, resample=resample)
    return np.asarray(pixels)


def compare(images, seed):
    """Put all kinds through one mixed batch; return the differences by kind."""
    generator = np.random.default_rng(seed)
    count, height, width, _ = images.shape
    kind = np.repeat(np.array(ALL), count)
    argument = np.concatenate([arguments_of(k, count, height, width, generator) for k in ALL])
    bicubic = generator.random(len(kind)) < 0.7
    batch = np.tile(images, (len(ALL), 1, 1, 1))
    operations = Operations(
        *(jnp.asarray(part)[None] for part in (kind, argument, 0 * argument, bicubic))
    )
    apply = jax.jit(lambda i, o: apply_operations(i, o, frozenset(ALL), FILL, "random"))
    found = np.asarray(apply(batch, operations)).astype(int)
    rows = zip(batch, kind, argument, bicubic, strict=True)
    expected = np.stack([expected_pixels(*row) for row in rows])
    difference = np.abs(found - expected).reshape(len(ALL), count, -1)
    return dict(zip(ALL, difference, strict=True))


def check(differences):
    for kind, difference in differences.items():
        if kind in GEOMETRIC:
            # Pillow interpolates in float64 and cuts to whole levels; float32 falls on the other
            # side where the value lies within about 1e-5 of a whole number.
            assert difference.max() <= 1, kind
            assert (difference > 0).mean(axis=1).max() <= 1e-3, kind
        else:
            assert difference.max() == 0, kind


@pytest.mark.parametrize(("height", "width"), [(64, 48), (29, 53)])
def test_all_operations_equal_timm_on_pillow(pictures, height, width):
    check(compare(pictures.mixed(height, width, 10), seed=height))


@pytest.mark.full
@pytest.mark.parametrize(
    ("height", "width"), [(224, 224), (224, 160), (97, 301), (384, 384), (32, 32), (3, 7), (1, 5)]
)
def test_all_operations_equal_timm_on_pillow_at_length(pictures, height, width):
    check(compare(pictures.mixed(height, width, 16), seed=height + width))


@pytest.mark.full
def test_geometric_operations_differ_on_few_pixels_only(pictures):
    """Over 1,000 warps of 224 x 224 pixels, with the fixed levels of AutoAugment among them."""
    generator = np.random.default_rng(5)
    images = np.concatenate([pictures.photographs(224, 224, 20), pictures.noise(224, 224, 20)])
    shares = []
    for kind in GEOMETRIC:
        apply = jax.jit(lambda i, o, k=kind: apply_operations(i, o, frozenset([k]), FILL, "random"))
        for repeat in range(5):
            argument = arguments_of(kind, len(images), 224, 224, generator)
            if repeat == 0:
                unit = {Kind.ROTATE: 1.5, Kind.SHEAR_X: 0.015, Kind.SHEAR_Y: 0.015}.get(kind, 5.04)
                argument = (unit * np.arange(-20, 20)).astype(np.float32)
            bicubic = np.arange(len(images)) % 4 > 0
            operations = Operations(
                jnp.full((1, len(images)), int(kind)),
                jnp.asarray(argument)[None],
                jnp.zeros((1, len(images))),
                jnp.asarray(bicubic)[None],
            )
            found = np.asarray(apply(images, operations)).astype(int)
            for row in range(len(images)):
                expected = expected_pixels(images[row], kind, argument[row], bicubic[row])
                difference = np.abs(found[row] - expected)
                assert difference.max() <= 1
                shares.append((difference > 0).mean())
    # Measured: at most 1.2e-4 of the pixels of an image, 2e-6 on average.
    assert max(shares) < 1e-3 and np.mean(shares) < 1e-5


@pytest.mark.parametrize("kind", ALL)
def test_host_operations_are_those_of_timm(pictures, kind):
    generator = np.random.default_rng(3)
    for image, argument in zip(
        pictures.mixed(23, 31, 2), arguments_of(kind, 11, 23, 31, generator), strict=True
    ):
        for bicubic in (True, False):
            found = np.asarray(operate(Image.fromarray(image), kind, float(argument), bicubic))
            expected = expected_pixels(image, kind, argument, bicubic)
            np.testing.assert_array_equal(found, expected)


def test_autocontrast_for_every_pair_of_ends():
    """All 32,640 ranges of levels, where Pillow's float64 scale decides about whole numbers."""
    table_of = jax.jit(autocontrast_table)
    for darkest in range(0, 255, 5):
        brightest = np.arange(darkest + 1, 256)
        counts = np.zeros((len(brightest), 3, 256), np.int32)
        counts[:, :, darkest] = 1
        counts[np.arange(len(brightest)), :, brightest] = 1
        found = np.asarray(table_of(np.resize(counts, (255, 3, 256))))[: len(brightest)]
        scale = 255.0 / (brightest - darkest)[:, None]
        # The two lines of ImageOps.autocontrast, in the same float64 operations.
        expected = np.trunc(np.arange(256) * scale + -darkest * scale).clip(0, 255)
        within = (np.arange(256) >= darkest) & (np.arange(256) <= brightest[:, None])
        for channel in range(3):
            np.testing.assert_array_equal(found[:, channel][within], expected[within])


def test_cosine_and_sine_are_exact_to_a_billionth():
    degrees = np.concatenate([np.linspace(-190, 190, 40_001), [0.0, 30.0, 45.0, 90.0, -0.125]])
    degrees = degrees.astype(np.float32)
    pairs = jax.jit(cosine_and_sine)(degrees)
    exact = np.radians(degrees.astype(np.float64))
    for (coarse, rest), expected in zip(pairs, (np.cos(exact), np.sin(exact)), strict=True):
        coarse, rest = np.asarray(coarse, np.float64), np.asarray(rest, np.float64)
        np.testing.assert_array_equal(coarse * 2048, np.round(coarse * 2048))
        np.testing.assert_allclose(coarse + rest, expected, atol=1e-9)


def test_blur_of_every_strength_equals_pillow(pictures):
    images = np.repeat(pictures.photographs(12, 19, 1), 400, axis=0)
    deviation = np.linspace(0.01, 2.0, 400).astype(np.float32)
    operations = Operations(
        jnp.full((1, 400), int(Kind.BLUR)),
        deviation[None],
        0 * deviation[None],
        deviation[None] > 0,
    )
    found = jax.jit(lambda i, o: apply_operations(i, o, frozenset([Kind.BLUR])))(images, operations)
    for number in range(400):
        blurred = Image.fromarray(images[number]).filter(
            ImageFilter.GaussianBlur(float(deviation[number]))
        )
        np.testing.assert_array_equal(found[number], blurred)


def test_rows_are_worked_on_alike_one_by_one_and_in_rounds(pictures):
    images = pictures.awkward(6, 5)
    added = np.arange(7, dtype=np.uint8)

    def function(rows, parameter):
        return rows + parameter[:, None, None, None]

    for selected in ([0] * 7, [1] * 7, [0, 1, 1, 0, 0, 1, 0]):
        selected = jnp.array(selected, bool)
        expected = np.where(
            np.asarray(selected)[:, None, None, None], images + added[:, None, None, None], images
        )
        found = jax.jit(lambda s: one_by_one(jnp.asarray(images), s, function, added))(selected)
        np.testing.assert_array_equal(found, expected)
        for rows in (1, 3, 64):
            found = jax.jit(
                lambda s, n=rows: in_rounds(
                    jnp.asarray(images), s, function, jnp.asarray(added), rows=n
                )
            )(selected)
            np.testing.assert_array_equal(found, expected)
