"""Small image folders on disk, and a source that counts."""

import numpy as np
import pytest
from PIL import Image

from deit_jax.data.source import Record


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    """Two splits of three classes, 5 + 4 + 2 and 3 + 1 + 2 images of various sizes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, counts in {"train": (5, 4, 2), "val": (3, 1, 2)}.items():
        for name, count in zip(("ant", "bee", "cat"), counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (*random.integers(24, 64, 2), 3)
                image = Image.fromarray(random.integers(0, 256, shape, np.uint8))
                image.save(root / split / name / f"{name}_{i}.JPEG")
    return root


class Counted:
    """Counts how often it is read."""

    name, num_classes, class_names = "counted", 1, ("a",)

    def __init__(self, count):
        self.labels = np.zeros(count, np.int32)
        self.reads = 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.reads += 1
        return Record(np.zeros((20, 20, 3), np.uint8), 0, str(index))


@pytest.fixture
def counted():
    return Counted
