"""Reads that fail for other reasons than damage: lack of memory, too many open files."""

import errno
import os

import numpy as np
import pytest

from deit_jax.data.images import decode as decode_module
from deit_jax.data.images.decode import decode
from deit_jax.data.open import open_source
from deit_jax.data.stream import batches as batches_module
from deit_jax.data.stream.loader import eval_batches, train_batches
from tests.data.stream.small_jpegs import SIZE, collect, write
from tests.inputs import eval_input, train_input


class Failing:
    """Fails with a given error over one record."""

    def __init__(self, source, error):
        self.source, self.error = source, error
        self.name, self.num_classes = source.name, source.num_classes
        self.class_names, self.labels = source.class_names, source.labels

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if index == 5:
            raise self.error
        return self.source[index]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    directory = write(tmp_path_factory.mktemp("sound"), 12)
    return open_source("folder", "train", str(directory))


def both_streams(source):
    """The training and the evaluation of all images once."""
    train = train_input(image_size=SIZE, batch_size=12, threads=1, max_damaged=1)
    evaluation = eval_input(image_size=SIZE, batch_size=12, threads=1, max_damaged=1)
    return train_batches(source, train, num_steps=1), eval_batches(source, evaluation)


@pytest.mark.parametrize("where", ["read", "decode", "crop"])
def test_lack_of_memory_for_one_image_is_damage_of_that_image(sound, monkeypatch, where):
    pixels = decode(sound[5].image)

    def fails_for_one(function, victim):
        def call(given, *rest, **more):
            if np.array_equal(given, victim):
                raise MemoryError
            return function(given, *rest, **more)

        return call

    source = Failing(sound, MemoryError()) if where == "read" else sound
    if where == "decode":
        fake = fails_for_one(decode_module._decode_pillow, sound[5].image)
        monkeypatch.setattr(decode_module, "_decode_pillow", fake)
        monkeypatch.setattr(decode_module, "_simplejpeg", None)
    elif where == "crop":
        for name in ("training_view", "evaluation_view"):
            fake = fails_for_one(getattr(batches_module, name), pixels)
            monkeypatch.setattr(batches_module, name, fake)
    for batches in both_streams(source):
        _, found = collect(batches)
        assert [damage.number for damage in found] == [5]
        assert "memory" in found[0].reason.lower()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE), "00005.jpeg"),
        # As array_record says it.
        RuntimeError("open() failed: Too many open files; opening a.array_record"),
    ],
)
def test_too_many_open_files_are_no_damage_but_end_the_run_with_advice(sound, error):
    for batches in both_streams(Failing(sound, error)):
        with pytest.raises(OSError, match=r"^Too many open files: .*ulimit -n .*fewer workers"):
            collect(batches)
