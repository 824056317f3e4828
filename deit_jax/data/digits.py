"""The handwritten digits inside scikit-learn: a data set for demonstrations, without download."""

import numpy as np
from PIL import Image

from deit_jax.data.sampling import balanced_order
from deit_jax.data.sources import ArraySource

TEST_IMAGES = 800
IMAGE_SIZE = 16


def open_digits(split: str) -> ArraySource:
    """Opens 1,797 handwritten digits (UCI, 8x8 grey values 0..16), as 16x16 RGB.

    The split is fixed: 800 test images, 80 of each class, and the other 997 for training.

    Args:
        split: "train" or "test".

    Raises:
        ValueError: for another split.
        ModuleNotFoundError: if scikit-learn is not installed.
    """
    if split not in ("train", "test"):
        raise ValueError(f"The digits have no split {split!r}: use train or test.")
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The digits come with scikit-learn: pip install 'deit_jax[demo]'."
        ) from error
    digits = load_digits()
    order = balanced_order(digits.target, seed=0)
    indices = np.sort(order[:TEST_IMAGES] if split == "test" else order[TEST_IMAGES:])
    images = np.stack([_upscale(image) for image in digits.images[indices]])
    return ArraySource(
        f"digits/{split}", images, digits.target[indices], [str(digit) for digit in range(10)]
    )


def _upscale(digit: np.ndarray) -> np.ndarray:
    """8x8 values 0..16 -> 16x16x3 uint8, by bicubic interpolation."""
    grey = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
    larger = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(larger)[:, :, None], 3, axis=2)
