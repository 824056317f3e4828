"""The handwritten digits inside scikit-learn: a data set for demonstrations, without download."""

import importlib.util
from pathlib import Path
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
    table = np.loadtxt(_table_path(), np.int64, delimiter=",")
    digits, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    indices = np.sort(balanced_order(labels, seed=0)[_SPLITS[split]])
    images = np.stack([_upscale(digit) for digit in digits[indices]])
    return ArraySource(
        f"digits/{split}", images, labels[indices], [str(digit) for digit in range(10)]
    )


def _table_path() -> Path:
    """Find 64 grey values and a label a line, without the seconds that importing it takes."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError(
            "The digits come with scikit-learn: pip install 'deit_jax[demo]'."
        )
    return Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")


def _upscale(digit: np.ndarray) -> np.ndarray:
    """8x8 values 0..16 -> 16x16x3 uint8, by bicubic interpolation."""
    grey = Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8))
    larger = grey.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(larger)[:, :, None], 3, axis=2)
