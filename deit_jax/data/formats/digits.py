"""The handwritten digits inside scikit-learn: a data set for demonstrations, without download."""

from typing import Final

import numpy as np
from PIL import Image

from deit_jax.data.draws import balanced_order
from deit_jax.data.source import ArraySource

# Runs of a class-balanced order, so each split is balanced as far as the classes go.
_SPLITS: Final = {"test": slice(0, 800), "validation": slice(800, 1200), "train": slice(1200, None)}
IMAGE_SIZE: Final = 16


def open_digits(split: str) -> ArraySource:
    """Open 1,797 handwritten digits (UCI, 8x8 grey values 0..16), as 16x16 RGB.

    The splits are fixed: 800 test images, 80 of each class; 400 validation images, 40 of each, to
    choose between settings by; and the other 597 for training.

    Args:
        split: "train", "validation" or "test".

    Raises:
        ValueError: for another split.
        ModuleNotFoundError: if scikit-learn is not installed.
    """
    if split not in _SPLITS:
        raise ValueError(f"The digits have no split {split!r}: use train, validation or test.")
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The digits come with scikit-learn: pip install 'deit_jax[demo]'."
        ) from error
    digits = load_digits()
    indices = np.sort(balanced_order(digits.target, seed=0)[_SPLITS[split]])
    images = np.stack([_upscale(image) for image in digits.images[indices]])
    return ArraySource(
        f"digits/{split}", images, digits.target[indices], [str(digit) for digit in range(10)]
    )


def _upscale(digit: np.ndarray) -> np.ndarray:
    """8x8 values 0..16 -> 16x16x3 uint8, by bicubic interpolation."""
    grey = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
    larger = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(larger)[:, :, None], 3, axis=2)
