"""What each stage of reading training images costs, one after the other in one thread."""

import math
import time
from dataclasses import dataclass

import numpy as np

from deit_jax.data.images.decode import decode
from deit_jax.data.images.resize import Pixels
from deit_jax.data.open_file_limit import check_open_files
from deit_jax.data.source import Source
from deit_jax.data.stream.batches import TrainBatches, training_view
from deit_jax.data.stream.options import TrainInput
from deit_jax.data.stream.repeated_augmentation import locate


@dataclass(frozen=True)
class Stages:
    """Seconds for each training image; copies of an image share reading and decoding.

    Attributes:
        seconds: of a core's time, by stage.
        read_wait: seconds besides that passed while reading: for the disk, or for a core.
        images: training images that were measured.
        damaged: records that could not be read or decoded, and were left out.
        bytes_per_record: encoded size on average; 0 where images are not encoded.
    """

    seconds: dict[str, float]
    read_wait: float
    images: int
    damaged: int
    bytes_per_record: float


def measure_stages(
    source: Source, options: TrainInput, images: int, seconds: float = math.inf
) -> Stages:
    """Read, decode and crop the first images of the training stream.

    Where images are held in memory at their size, the one stage is "gather".

    Args:
        source: images and labels.
        options: sampling and cropping.
        images: how many training images, at least, if time allows.
        seconds: after which no other record is begun.

    Raises:
        ValueError: if the source is empty or none of its records can be read.
    """
    if len(source) == 0:
        raise ValueError(f"{source.name} holds no images.")
    build = TrainBatches(source, options, 0, 1)
    if build.gathers:
        return _measure_gathering(build, images)
    epochs, indices, copies = locate(
        np.arange(images, dtype=np.int64), len(source), options.data.repeats, options.seed
    )
    rows: dict[tuple[int, int], list[int]] = {}
    for epoch, index, copy in zip(epochs.tolist(), indices.tolist(), copies.tolist(), strict=True):
        rows.setdefault((epoch, index), []).append(copy)
    spent = dict.fromkeys(("read", "decode", "crop", "wait"), 0.0)
    # The first crop loads the kernel.
    training_view(np.zeros((2, 2, 3), np.uint8), options, (0, 0, 0), _canvas(options))
    done, records, damaged, size, reason = 0, 0, 0, 0, ""
    end = time.monotonic() + seconds
    for (epoch, index), its_copies in rows.items():
        if done and time.monotonic() > end:
            break
        places = [(epoch, index, copy) for copy in its_copies]
        try:
            size += _one(source, options, places, spent)
            done, records = done + len(its_copies), records + 1
        except (ValueError, OSError) as error:
            check_open_files(error)
            damaged, reason = damaged + 1, str(error)
    if not done:
        raise ValueError(f"None of {len(rows)} records of {source.name} can be read: {reason}.")
    mean = {stage: cost / done for stage, cost in spent.items()}
    return Stages(mean, mean.pop("wait"), done, damaged, size / records)


def _one(
    source: Source,
    options: TrainInput,
    places: list[tuple[int, int, int]],
    seconds: dict[str, float],
) -> int:
    """Take one record through all stages, adding to `seconds`; returns its bytes."""
    passed, begin = time.perf_counter(), time.thread_time()
    image = source[places[0][1]].image
    start = time.thread_time()
    seconds["read"] += start - begin
    seconds["wait"] += time.perf_counter() - passed - (start - begin)
    pixels = decode(image) if isinstance(image, bytes) else image
    middle = time.thread_time()
    for place in places:
        training_view(pixels, options, place, _canvas(options))
    seconds["decode"] += middle - start
    seconds["crop"] += time.thread_time() - middle
    return len(image) if isinstance(image, bytes) else 0


def _canvas(options: TrainInput) -> Pixels:
    return np.empty((*options.image_size, 3), np.uint8)


def _measure_gathering(build: TrainBatches, images: int) -> Stages:
    steps = -(-images // build.options.batch_size)
    build(0)
    start = time.thread_time()
    for step in range(steps):
        build(step)
    done = steps * build.options.batch_size
    return Stages({"gather": (time.thread_time() - start) / done}, 0.0, done, 0, 0.0)
