"""One step's batch, made from nothing but the step number: what reader threads and workers run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deit_jax.data.crop import (
    CROP_DRAWS,
    Pixels,
    centre_crop,
    random_resized_crop,
    resize,
)
from deit_jax.data.decode import decode
from deit_jax.data.options import EvalInput, TrainInput
from deit_jax.data.sampling import crop_draws, locate
from deit_jax.data.sources import ArraySource, Source

Batch = dict[str, np.ndarray[Any, Any]]


def read(source: Source, index: int) -> tuple[Pixels, int]:
    """Reads and decodes one record.

    Returns:
        (pixels, label).

    Raises:
        ValueError: naming the record, if it cannot be read or decoded or its label is impossible.
    """
    name = f"{source.name}[{index}]"
    # Exceptions of other libraries need not survive pickling, and the process that waits for this
    # one's batch would never hear of them: hence only builtin ones leave from here.
    try:
        record = source[index]
        name = record.name
        pixels = decode(record.image) if isinstance(record.image, bytes) else record.image
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"Cannot read record {name}: {error}. Replace it or remove it from the data set."
        ) from error
    if not 0 <= record.label < source.num_classes:
        raise ValueError(
            f"Record {name} has label {record.label}, but {source.name} has "
            f"{source.num_classes} classes, counted from 0."
        )
    return pixels, record.label


@dataclass(frozen=True)
class TrainBatches:
    """Maps a step to this process's rows of the training batch."""

    source: Source
    options: TrainInput
    process_index: int
    process_count: int

    def __call__(self, step: int) -> Batch:
        """Builds the batch of a step.

        Returns:
            "image" uint8 [rows, height, width, 3]; "label", "epoch", "index", "copy" int32 [rows].
        """
        options = self.options
        rows = options.batch_size // self.process_count
        first = step * options.batch_size + self.process_index * rows
        positions = np.arange(first, first + rows, dtype=np.int64)
        epoch, index, copy = locate(positions, len(self.source), options.repeats, options.seed)
        held = _in_memory(self.source, options.image_size) if options.crop == "none" else None
        if held is not None:
            image, label = held.images[index], held.labels[index]
        else:
            image, label = self._decode(epoch, index, copy)
        batch = {"image": image, "label": label, "epoch": epoch, "index": index, "copy": copy}
        return {k: v if k == "image" else v.astype(np.int32) for k, v in batch.items()}

    def _decode(
        self, epoch: np.ndarray, index: np.ndarray, copy: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes each image once, however many copies of it stand in these rows."""
        options = self.options
        image = np.empty((len(index), *options.image_size, 3), np.uint8)
        label = np.empty(len(index), np.int32)
        for number, rows in _rows_of_each(index):
            pixels, label[rows] = read(self.source, number)
            for row in rows:
                if options.crop == "none":
                    image[row] = resize(pixels, options.image_size)
                    continue
                draws = crop_draws(
                    options.seed, int(epoch[row]), number, int(copy[row]), CROP_DRAWS
                )
                image[row] = random_resized_crop(
                    pixels,
                    options.image_size,
                    draws,
                    scale=options.scale,
                    ratio=options.ratio,
                    interpolation=options.interpolation,
                )
        return image, label


@dataclass(frozen=True)
class EvalBatches:
    """Maps a step to this process's rows of an evaluation batch."""

    source: Source
    options: EvalInput
    process_index: int
    process_count: int

    def __call__(self, step: int) -> Batch:
        """Builds the batch of a step; rows beyond the data set are zero and masked out.

        Returns:
            "image" uint8 [rows, height, width, 3], "label" int32 [rows], "mask" bool [rows].
        """
        options = self.options
        rows = options.batch_size // self.process_count
        first = step * options.batch_size + self.process_index * rows
        index = np.arange(first, min(first + rows, len(self.source)))
        image = np.zeros((rows, *options.image_size, 3), np.uint8)
        label = np.zeros(rows, np.int32)
        held = _in_memory(self.source, options.image_size) if options.crop_ratio == 1 else None
        if held is not None:
            image[: len(index)] = held.images[index]
            label[: len(index)] = held.labels[index]
        else:
            for row, number in enumerate(index):
                pixels, label[row] = read(self.source, int(number))
                image[row] = centre_crop(pixels, options.image_size, options.crop_ratio)
        return {"image": image, "label": label, "mask": np.arange(rows) < len(index)}


def _in_memory(source: Source, image_size: tuple[int, int]) -> ArraySource | None:
    """The source, if whole batches can be gathered from it without touching single images."""
    if isinstance(source, ArraySource) and source.images.shape[1:3] == image_size:
        return source
    return None


def _rows_of_each(index: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(index.tolist()):
        rows.setdefault(number, []).append(row)
    yield from rows.items()
