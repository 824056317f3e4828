"""One step's batch, made from nothing but the step number: what reader threads and workers run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from deit_jax.data.crop import CROP_DRAWS, evaluation_view, random_resized_crop
from deit_jax.data.damage import Damage
from deit_jax.data.decode import decode_and_tell
from deit_jax.data.oddities import Oddity
from deit_jax.data.open_files import check_open_files
from deit_jax.data.options import EvalInput, TrainInput
from deit_jax.data.placement import apart
from deit_jax.data.resize import Pixels, resize
from deit_jax.data.sampling import crop_draws, locate, substitutes
from deit_jax.data.simple_crop import simple_random_crop
from deit_jax.data.sources import ArraySource, Source

Batch = dict[str, np.ndarray[Any, Any]]
# What a reader notices: records that it could not read, and such as it could hardly read.
Found = list[Damage | Oddity]
Step = tuple[Batch, Found]
# With one record in three damaged, so many in a row are once in 10^15.
_SUBSTITUTES: Final = 32


class DamagedRecordError(ValueError):
    """A record that cannot be read or decoded."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Cannot read record {self.name}: {self.reason}. "
            "Replace it or remove it from the data set."
        )


def read(
    source: Source,
    index: int,
    found: Found | None = None,
    view: Callable[[Pixels], Pixels] = lambda pixels: pixels,
) -> tuple[Pixels, int]:
    """Reads and decodes one record.

    Args:
        source: to read from.
        index: of the record.
        found: is added to, if the record is odd.
        view: what is made of the pixels.

    Returns:
        (the view, label).

    Raises:
        DamagedRecordError: if it cannot be read or decoded, or memory does not suffice for it.
        ValueError: naming the record, if its label is impossible.
        OSError: if too many files are open.
    """
    name, loss = f"{source.name}[{index}]", ""
    # Exceptions of other libraries need not survive pickling, and the process that waits for this
    # one's batch would never hear of them: hence only builtin ones and ours leave from here.
    try:
        record = source[index]
        name, pixels = record.name, record.image
        if isinstance(pixels, bytes):
            pixels, loss = decode_and_tell(pixels)
    except Exception as error:
        check_open_files(error)
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror and error.filename:
            name, reason = str(error.filename), error.strerror
        raise DamagedRecordError(name, " ".join(reason.split())) from error
    if not 0 <= record.label < source.num_classes:
        raise ValueError(
            f"Record {name} has label {record.label}, but {source.name} has "
            f"{source.num_classes} classes, counted from 0."
        )
    if loss and found is not None:
        found.append(Oddity(index, name, loss))
    try:
        return view(pixels), record.label
    except MemoryError as error:
        raise DamagedRecordError(name, "there is not enough memory to resize it") from error


def read_or_replace(
    source: Source, index: int, seed: int, found: Found, view: Callable[[Pixels], Pixels]
) -> int:
    """Reads a record or, if it is damaged, the first sound one of its `substitutes`.

    Args:
        source: to read from.
        index: of the record.
        seed: of the stream.
        found: is added to.
        view: what is made of the pixels.

    Returns:
        The label of the record that was read.

    Raises:
        ValueError: if the substitutes are damaged as well, or as `read`.
    """
    damages = []
    for number in [index, *substitutes(seed, index, len(source), _SUBSTITUTES)]:
        try:
            return read(source, number, found, view)[1]
        except DamagedRecordError as error:
            damages.append(Damage(number, error.name, error.reason))
            found.append(damages[-1])
    names = ", ".join(damage.name for damage in damages[-_SUBSTITUTES:])
    raise ValueError(
        f"{source.name} is damaged all over: none of {names} can be read ({damages[-1].reason})."
    )


def training_view(
    pixels: Pixels, options: TrainInput, place: tuple[int, int, int], out: Pixels
) -> None:
    """Cuts and resizes an image as the options say.

    Args:
        pixels: the decoded image.
        options: of the stream.
        place: (epoch, index, copy) in the stream, which the crop follows from.
        out: takes the result.
    """
    if options.crop == "none":
        resize(pixels, options.image_size, out=out)
        return
    draws = crop_draws(options.seed, *place, CROP_DRAWS)
    if options.crop == "simple":
        simple_random_crop(pixels, options.image_size, draws, out=out)
        return
    random_resized_crop(
        pixels,
        options.image_size,
        draws,
        scale=options.scale,
        ratio=options.ratio,
        interpolation=options.interpolation,
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
        return _in_memory(self.source, options.image_size) if options.crop == "none" else None

    def __call__(self, step: int) -> Step:
        """Builds the batch of a step.

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
        """Returns epoch, image and copy of this process's rows.

        They follow from the whole batch, so that they do not depend on the number of processes.
        """
        options = self.options
        positions = step * options.batch_size + np.arange(options.batch_size, dtype=np.int64)
        places = locate(positions, len(self.source), options.repeats, options.seed)
        order = np.arange(options.batch_size)
        if options.repeats > 1 and options.mix_group:
            order = apart(places[1], options.mix_group)
        rows = options.batch_size // self.process_count
        mine = order[self.process_index * rows : (self.process_index + 1) * rows]
        epoch, index, copy = (values[mine] for values in places)
        return epoch, index, copy

    def _decode(
        self, epoch: np.ndarray, index: np.ndarray, copy: np.ndarray, found: Found
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decodes each image once, however many copies of it stand in these rows."""
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
        """Builds the batch of a step; rows beyond the data set are zero and masked out.

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
                    image[row], label[row] = read(self.source, number, found, self._view)
                except DamagedRecordError as error:
                    found.append(Damage(number, error.name, error.reason))
                    mask[row] = False
        return {"image": image, "label": label, "mask": mask}, found

    def _view(self, pixels: Pixels) -> Pixels:
        return evaluation_view(pixels, self.options.image_size, self.options.view)


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
