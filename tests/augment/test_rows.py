"""Rows of levels in the order of TPUs: the same images, and nothing that is slow to compile."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deit_jax.augment.choices import draw_boxes
from deit_jax.augment.erasing import erase
from deit_jax.augment.keys import image_keys
from deit_jax.augment.pipeline import augment_images
from deit_jax.augment.tables import histogram, look_up
from deit_jax.devices import traced_for
from deit_jax.schema.images import NORMALISED

ERASING = replace(NORMALISED, erasing_probability=1.0, erasing_count=2, erasing_area=(0.1, 0.3))


def traced(platform, function, *arguments):
    with traced_for(platform):
        return np.asarray(jax.jit(lambda *values: function(*values))(*arguments))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_tables_and_histograms_equal_numpy(pictures, platform):
    images = pictures.photographs(9, 14, 3)
    tables = np.random.default_rng(0).integers(0, 256, (3, 3, 256), dtype=np.uint8)
    image, channel = np.arange(3)[:, None, None, None], np.arange(3)
    expected = tables[image, channel, images]
    found = traced(platform, look_up, images, tables)
    np.testing.assert_array_equal(found, expected)
    counts = [[np.bincount(one[..., c].ravel(), minlength=256) for c in range(3)] for one in images]
    np.testing.assert_array_equal(traced(platform, histogram, images), counts)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pixel", "rand"])
def test_erasing_does_not_depend_on_the_order(mode):
    options = replace(ERASING, erasing_mode=mode)
    keys = image_keys(0, *[jnp.arange(3)] * 3)
    images = np.zeros((3, 12, 17, 3), np.float32)
    boxes = draw_boxes(keys, options, 12, 17)
    found, expected = (
        traced(platform, lambda i: erase(i, boxes, keys, options), images)
        for platform in ("tpu", "cpu")
    )
    assert (expected != 0).any()
    # Another program may round the last bit of a normal draw otherwise.
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_no_reshape_for_tpus_mixes_pixels_and_channels():
    """Each would take XLA about a minute."""
    options = replace(ERASING, flip=0.5, policy="rand-m9-mstd0.5-inc1", color_jitter=0.3)
    images = jnp.zeros((4, 32, 40, 3), jnp.uint8)
    keys = image_keys(0, *[jnp.arange(4)] * 3)
    with traced_for("tpu"):
        text = jax.jit(lambda i, k: augment_images(i, k, options)).lower(images, keys).as_text()
    found = re.findall(r"stablehlo\.reshape .*: \(tensor<(.*)x\w+>\) -> tensor<(.*)x\w+>", text)
    shapes = [[[int(n) for n in side.split("x")] for side in pair] for pair in found]
    large = [pair for pair in shapes if np.prod(pair[0]) >= 4 * 32 * 40]
    assert large
    for before, after in large:
        assert (before[-1] == 3) == (after[-1] == 3), (before, after)
