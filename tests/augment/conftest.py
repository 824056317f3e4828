"""Images that the tests of augmentation share: photographs, noise and awkward ones."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest


@cache
def photos():
    # Imported here: scikit-learn takes a second, and most tests need none.
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def photographs(height, width, count, seed=0):
    generator = np.random.default_rng(seed)
    cut = []
    for number in range(count):
        photo = photos()[number % len(photos())]
        top = generator.integers(0, photo.shape[0] - height + 1)
        left = generator.integers(0, photo.shape[1] - width + 1)
        cut.append(photo[top : top + height, left : left + width])
    return np.stack(cut)


def noise(height, width, count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, height, width, 3), np.uint8)


def awkward(height, width, seed=0):
    """Flat, black, white, two-valued, narrow-range, a ramp, and one dominant level."""
    generator = np.random.default_rng(seed)
    shape = (height, width, 3)
    narrow = generator.integers(93, 131, shape)
    rare = np.where(generator.random(shape) < 0.002, 200, 17)
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], shape)
    two = np.where(generator.random(shape) < 0.5, 40, 41)
    made = [np.full(shape, 77), np.zeros(shape), np.full(shape, 255), two, narrow, ramp, rare]
    return np.stack(made).astype(np.uint8)


def mixed(height, width, count, seed=0):
    """Photographs and noise in turn, then the awkward ones."""
    halves = photographs(height, width, count, seed), noise(height, width, count, seed)
    return np.concatenate([*halves, awkward(height, width, seed)])


@pytest.fixture
def pictures():
    return SimpleNamespace(photographs=photographs, noise=noise, awkward=awkward, mixed=mixed)
