"""One program that delivers training batches, measured in a process of its own.

Run by benchmarks/input.py as `python -m benchmarks.input_side SIDE`, where SIDE is a `Side` as
JSON; prints one line of JSON.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import process_tree


@dataclass(frozen=True)
class Side:
    """What is measured.

    Attributes:
        program: "deit_jax" or "torch".
        source: of deit_jax: "folder" or "prepared".
        directory: where the images are.
        cores: that all its processes may use.
        workers: processes that read; 0 for none.
        threads: that read, in each process; deit_jax only.
        repeats: copies of an image in a batch.
        batch_size: images.
        seconds: to measure for, after the first batches.
    """

    program: str
    source: str
    directory: str
    cores: int
    workers: int
    threads: int
    repeats: int
    batch_size: int
    seconds: float


def main(argv: list[str]) -> int:
    """Measure the side; return the process's exit code."""
    side = Side(**json.loads(argv[0]))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: side.cores])
    begin = time.perf_counter()
    open_stream = _ours if side.program == "deit_jax" else _theirs
    with open_stream(side) as batches:
        print(json.dumps(dataclasses.asdict(side) | _measure(side, batches, begin)))
    return 0


def _measure(side: Side, batches: Iterator[Any], begin: float) -> dict[str, Any]:
    """Take batches as a training loop without a model would."""
    opened = time.perf_counter()
    shape = _image(next(batches)).shape
    first = time.perf_counter()
    # What the readers had finished before anyone asked would look like speed.
    for _ in range(4 * max(1, side.workers) + 2):
        next(batches)
    start, processor = time.perf_counter(), process_tree.processor_seconds()
    taken = 0
    while time.perf_counter() - start < side.seconds:
        _image(next(batches))
        taken += 1
    seconds = time.perf_counter() - start
    used = process_tree.processor_seconds() - processor
    held = process_tree.memory()
    return {
        "image_shape": list(shape),
        "images_per_second": taken * side.batch_size / seconds,
        "processor_ms_per_image": 1e3 * used / (taken * side.batch_size),
        # From the beginning of the imports; and from when the stream was opened.
        "start_seconds": first - begin,
        "first_batch_seconds": first - opened,
        "memory": held._asdict(),
    }


def _image(batch: Any) -> Any:
    return batch["image"] if isinstance(batch, dict) else batch[0]


@contextlib.contextmanager
def _ours(side: Side) -> Iterator[Iterator[Any]]:
    from deit_jax.data.open import open_source
    from deit_jax.data.stream.loader import train_batches
    from deit_jax.data.stream.options import TrainInput
    from deit_jax.schema.images import DataOptions

    source = open_source(side.source, "train", side.directory)
    options = TrainInput(
        image_size=(224, 224),
        batch_size=side.batch_size,
        # The recipe's mixing groups, or the largest that divide the batch.
        mix_group=math.gcd(side.batch_size, 64),
        data=DataOptions(repeats=side.repeats, workers=side.workers, threads=side.threads),
    )
    with train_batches(source, options, num_steps=10**6) as batches:
        yield batches


@contextlib.contextmanager
def _theirs(side: Side) -> Iterator[Iterator[Any]]:
    """Return the reference's loader; timm's sampler where images are repeated."""
    import torch
    from torch.utils.data import DataLoader, RandomSampler

    from benchmarks.timm_import import timm, torchvision

    torch.set_num_threads(1)
    transform = timm.data.create_transform(
        224,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        color_jitter=0.3,
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
    )
    data = torchvision.datasets.ImageFolder(f"{side.directory}/train", transform)
    sampler: Any = RandomSampler(data)
    if side.repeats > 1:
        sampler = timm.data.distributed_sampler.RepeatAugSampler(
            data, num_replicas=1, rank=0, num_repeats=side.repeats
        )
    loader = DataLoader(
        data,
        batch_size=side.batch_size,
        sampler=_Endless(sampler),
        num_workers=side.workers,
        drop_last=True,
    )
    yield iter(loader)


class _Endless:
    """A sampler again and again, so that no time is lost between two short epochs."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from self._sampler


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
