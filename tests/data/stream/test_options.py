"""What the options refuse, and what they say about memory."""

import pytest

from deit_jax.data.stream.options import batch_bytes, buffer_bytes, describe_readers
from deit_jax.preprocessing import EvalView
from tests.inputs import train_input


def test_buffers_are_counted():
    options = train_input(image_size=(224, 224), batch_size=1024)
    assert batch_bytes(options, 4) == 256 * 224 * 224 * 3
    assert buffer_bytes(options, 4) == 2 * batch_bytes(options, 4)
    many = train_input(image_size=(224, 224), batch_size=1024, workers=8, threads=1, prefetch=1)
    # Each worker: one building, one written out; two shared on either side.
    assert buffer_bytes(many) == 8 * (2 + 4) * batch_bytes(many)


def test_the_estimate_of_memory_is_said():
    options = train_input(image_size=(224, 224), batch_size=1024)
    # 2 batches of 1,024 * 224 * 224 * 3 bytes.
    assert describe_readers(options) == "2 reader thread(s) with up to 294 MiB of batches"
    many = train_input(image_size=(224, 224), batch_size=1024, workers=8, threads=1, prefetch=1)
    assert describe_readers(many, process_count=4) == (
        "8 reader process(es) with up to 1,764 MiB of batches, 1,176 MiB of that in shared memory, "
        "and about 1,200 MiB of program"
    )


def test_wrong_crop_ratio_is_named():
    with pytest.raises(ValueError, match="crop_ratio"):
        EvalView.keeping(0.0)
