"""Small data sets in both formats of TensorFlow Datasets, and what is said where one is refused."""

import pytest

from deit_jax.data.open import open_source
from tests.data.small_tfds import as_tfrecords, prepare, tfds

FORMATS = ["array_record", "tfrecord"]
features = tfds.features


def three():
    return features.ClassLabel(names=["ant", "bee", "cat"])


def both(folder, label, **options):
    """A data set in both formats, each in a directory of its own."""
    before = prepare(folder / "array_record", label, **options) / "tiny" / "1.0.0"
    as_tfrecords(before, folder / "tfrecord" / "tiny" / "1.0.0")
    return folder


def refusal(folder, split="train"):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        open_source("tfds", split, str(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message
