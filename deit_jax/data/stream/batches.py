"""One step's batch, made from nothing but the step number: what reader threads and workers run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deit_jax.data.draws import crop_draws
from deit_jax.data.images.crop import CROP_DRAWS, evaluation_view, random_resized_crop
from deit_jax.data.images.resize import Pixels, resize
from deit_jax.data.images.simple_crop import simple_random_crop
from deit_jax.data.source import ArraySource, Source
from deit_jax.data.stream.damage_count import Damage
from deit_jax.data.stream.options import EvalInput, TrainInput
from deit_jax.data.stream.read_or_replace import (
    DamagedRecordError,
    Found,
    read_image,
    read_or_replace,
)
from deit_jax.data.stream.repeated_augmentation import apart, locate

HostBatch = dict[str, np.ndarray[Any, Any]]
# With what a reader noticed.
Step = tuple[HostBatch, Found]


def training_view(
    pixels: Pixels, options: TrainInput, place: tuple[int, int, int], out: Pixels
) -> None:
    """Cut and resize an image as the options say.

    Args:
        pixels: the decoded image.
        options: of the stream.
        place: (epoch, index, copy) in the stream, which the crop follows from.
        out: takes the result.
    """
    if options.data.crop == "none":
        resize(pixels, options.image_size, out=out)
        return
    draws = crop_draws(options.seed, *place, CROP_DRAWS)
    if options.data.crop == "simple":
        simple_random_crop(pixels, options.image_size, draws, out=out)
        return
    random_resized_crop(
        pixels,
        options.image_size,
        draws,
        scale=options.data.crop_scale,
        ratio=options.data.crop_ratio,
        interpolation=options.data.interpolation,
        out=out,
    )


@dataclass(frozen=True)
class TrainBatches:
    """Maps a step to this process's rows of the training batch."""

    source: Source
    options: TrainInput
    process_index: int
    process_count: int

    @property
    def gathers(self) -> bool:
        """Whether batches are taken out of memory as they are, without touching single images."""
        return self._held is not None

    @property
    def _held(self) -> ArraySource | None:
        options = self.options
        return _in_memory(self.source, options.image_size) if options.data.crop == "none" else None

    def __call__(self, step: int) -> Step:
        """Build the batch of a step.

        A damaged image is replaced by another with its label; "epoch", "index" and "copy", which
        all randomness follows from, stay what they are.

        Returns:
            "image" uint8 [rows, height, width, 3]; "label", "epoch", "index", "copy" int32 [rows];
            and the damaged and odd records.
        """
        epoch, index, copy = self._rows(step)
        found: Found = []
        held = self._held
        if held is not None:
            image, label = held.images[index], held.labels[index]
        else:
            image, label = self._decode(epoch, index, copy, found)
        batch = {"image": image, "label": label, "epoch": epoch, "index": index, "copy": copy}
        return {k: v if k == "image" else v.astype(np.int32) for k, v in batch.items()}, found

    def _rows(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return epoch, image and copy of this process's rows.

        They follow from the whole batch, so that they do not depend on the number of processes.
        """
        options = self.options
        positions = step * options.batch_size + np.arange(options.batch_size, dtype=np.int64)
        places = locate(positions, len(self.source), options.data.repeats, options.seed)
        order = np.arange(options.batch_size)
        if options.data.repeats > 1 and options.mix_group:
            order = apart(places[1], options.mix_group)
        rows = options.batch_size // self.process_count
        mine = order[self.process_index * rows : (self.process_index + 1) * rows]
        epoch, index, copy = (values[mine] for values in places)
        return epoch, index, copy

    def _decode(
        self, epoch: np.ndarray, index: np.ndarray, copy: np.ndarray, found: Found
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode each image once, however many copies of it stand in these rows."""
        options = self.options
        image = np.empty((len(index), *options.image_size, 3), np.uint8)
        label = np.empty(len(index), np.int32)
        for number, rows in _rows_of_each(index):

            def view(pixels: Pixels, number: int = number, rows: list[int] = rows) -> Pixels:
                for row in rows:
                    place = int(epoch[row]), number, int(copy[row])
                    training_view(pixels, options, place, out=image[row])
                return pixels

            label[rows] = read_or_replace(self.source, number, options.seed, found, view)
        return image, label


@dataclass(frozen=True)
class EvalBatches:
    """Maps a step to this process's rows of an evaluation batch."""

    source: Source
    options: EvalInput
    process_index: int
    process_count: int

    def __call__(self, step: int) -> Step:
        """Build the batch of a step; rows beyond the data set are zero and masked out.

        So are damaged images: nothing can stand in for them here.

        Returns:
            "image" uint8 [rows, height, width, 3], "label" int32 [rows], "mask" bool [rows]; and
            the damaged and odd records.
        """
        options = self.options
        rows = options.batch_size // self.process_count
        first = step * options.batch_size + self.process_index * rows
        index = np.arange(first, min(first + rows, len(self.source)))
        image = np.zeros((rows, *options.image_size, 3), np.uint8)
        label = np.zeros(rows, np.int32)
        mask = np.arange(rows) < len(index)
        found: Found = []
        size = options.image_size
        # Nothing is done to images that are shown as large as they are.
        unchanged = options.view.resized(size, size) == size
        held = _in_memory(self.source, size) if unchanged else None
        if held is not None:
            image[: len(index)] = held.images[index]
            label[: len(index)] = held.labels[index]
        else:
            for row, number in enumerate(index.tolist()):
                try:
                    image[row], label[row] = read_image(self.source, number, found, self._view)
                except DamagedRecordError as error:
                    found.append(Damage(number, error.name, error.reason))
                    mask[row] = False
        return {"image": image, "label": label, "mask": mask}, found

    def _view(self, pixels: Pixels) -> Pixels:
        return evaluation_view(pixels, self.options.image_size, self.options.view)


def _in_memory(source: Source, image_size: tuple[int, int]) -> ArraySource | None:
    """Return the source if whole batches can be gathered from it, not single images."""
    if isinstance(source, ArraySource) and source.images.shape[1:3] == image_size:
        return source
    return None


def _rows_of_each(index: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(index.tolist()):
        rows.setdefault(number, []).append(row)
    yield from rows.items()
