"""Fewer classes and fewer images of a data set."""

import numpy as np
import pytest

from deit_jax.data.combined import fraction, keep_classes
from deit_jax.data.open import open_source
from deit_jax.data.source import require_same_classes
from deit_jax.data.stream.loader import train_batches
from tests.inputs import train_input


def test_kept_classes_have_the_same_meaning_in_every_split():
    train, test = (open_source("digits", split) for split in ("train", "test"))
    part, other = keep_classes(train, 4), keep_classes(test, 4)
    require_same_classes(part, other)
    assert len(other) == 4 * 80
    assert np.bincount(other.labels).tolist() == [80] * 4
    for i in range(len(part)):
        record, original = part[i], train[int(part.indices[i])]
        assert record.label == part.labels[i]
        # The classes of the digits are named by the digit.
        assert part.class_names[record.label] == train.class_names[original.label]
        np.testing.assert_array_equal(record.image, original.image)
    assert set(keep_classes(train, 3).class_names) < set(part.class_names)
    assert keep_classes(train, 0) is train
    assert keep_classes(train, 10) is train
    with pytest.raises(ValueError, match=r"10 classes: data\.classes=11"):
        keep_classes(train, 11)


def test_a_tenth_of_a_few_classes_trains():
    source = fraction(keep_classes(open_source("digits", "train"), 5), 0.1, seed=3)
    assert len(source) == round(0.1 * len(keep_classes(open_source("digits", "train"), 5)))
    counts = np.bincount(source.labels)
    assert counts.max() - counts.min() <= 1
    options = train_input(image_size=(16, 16), batch_size=len(source), threads=1, crop="none")
    with train_batches(source, options, num_steps=1) as batches:
        (batch,) = batches
    np.testing.assert_array_equal(np.sort(batch["label"]), np.sort(source.labels))
