"""What the input pipeline can be told, and what its buffers cost."""

import math
from dataclasses import dataclass

from deit_jax.data.images.crop import INTERPOLATIONS
from deit_jax.preprocessing import ASSUMED, EvalView

# Measured: private memory of a reader process beside its batches (Grain, NumPy, numba's kernel).
_READER_BYTES = 150 << 20


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Options of every stream of batches.

    Attributes:
        image_size: (height, width) of the images delivered.
        batch_size: images in a batch, over all processes.
        workers: reader processes; 0 reads in threads of this process, which is enough for up to
            about six cores.
        threads: reader threads, in each worker if there are workers; 0 reads when asked.
        prefetch: finished batches held ready, for each worker if there are workers.
        max_damaged: how many records may turn out damaged before the stream ends with an error:
            below 1 a share of the data set, from 1 on a count; 0 for none.
    """

    image_size: tuple[int, int]
    batch_size: int
    workers: int = 0
    threads: int = 2
    prefetch: int = 2
    max_damaged: float = 0.001

    def __post_init__(self) -> None:
        if min(self.image_size) < 1 or self.batch_size < 1:
            raise ValueError(
                f"image_size {self.image_size} and batch_size {self.batch_size} must be positive."
            )
        if min(self.workers, self.threads, self.prefetch) < 0:
            raise ValueError("workers, threads and prefetch must not be negative.")
        if not 0 <= self.max_damaged < math.inf:
            raise ValueError(f"max_damaged {self.max_damaged} must be a share or a count, >= 0.")


@dataclass(frozen=True, kw_only=True)
class TrainInput(InputOptions):
    """Options of the training stream.

    Attributes:
        repeats: augmented copies of each image in a batch (repeated augmentation); 1 for none.
        mix_group: consecutive rows that are mixed with each other, among which no image may stand
            twice (`placement.apart`); divides the batch. 0: copies stand side by side.
        seed: of the order and the crops; not negative.
        crop: "random_resized"; "simple" (the whole image, moved by a few pixels); or "none" to
            resize the whole image, proportions not kept.
        scale: smallest and largest share of the image's area in a random crop.
        ratio: smallest and largest width / height of a random crop.
        interpolation: of a random crop: "bicubic", "bilinear", or "random" for either.
    """

    repeats: int = 1
    mix_group: int = 0
    seed: int = 0
    crop: str = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.repeats < 1 or self.seed < 0:
            raise ValueError(f"repeats {self.repeats} must be positive, seed {self.seed} >= 0.")
        if self.mix_group < 0 or (self.mix_group and self.batch_size % self.mix_group):
            raise ValueError(
                f"mix_group {self.mix_group} does not divide a batch of {self.batch_size}."
            )
        if self.crop not in ("random_resized", "simple", "none"):
            raise ValueError(f"Unknown crop {self.crop!r}: use random_resized, simple or none.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must be rising within (0, 1].")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must be positive and rising.")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"Unknown interpolation {self.interpolation!r}: use {', '.join(INTERPOLATIONS)}."
            )


@dataclass(frozen=True, kw_only=True)
class EvalInput(InputOptions):
    """Options of the evaluation stream.

    Attributes:
        view: how images are resized and cut out.
    """

    view: EvalView = ASSUMED.view


def batch_bytes(options: InputOptions, process_count: int = 1) -> int:
    """Bytes of the images of one batch in one process."""
    height, width = options.image_size
    return options.batch_size // process_count * height * width * 3


def shared_bytes(options: InputOptions, process_count: int = 1) -> int:
    """Most bytes of shared memory (/dev/shm) that reader processes hold at one time.

    For each worker: `prefetch` batches queued and one being written, and on the receiving side
    `prefetch` unpacked and one waiting for room.
    """
    held = 2 * max(1, options.prefetch) + 2
    return options.workers * held * batch_bytes(options, process_count)


def buffer_bytes(options: InputOptions, process_count: int = 1) -> int:
    """Most bytes that batches of this process take before the training loop has asked for them.

    Without workers `prefetch` batches (as many as threads at least) wait or are being built; with
    workers each holds one for each thread besides what it shares (`shared_bytes`).
    """
    size = batch_bytes(options, process_count)
    if options.workers == 0:
        return size * (max(options.prefetch, options.threads) if options.threads else 0)
    return options.workers * (options.threads + 1) * size + shared_bytes(options, process_count)


def describe_readers(options: InputOptions, process_count: int = 1) -> str:
    """Say what reads and how much memory that may take in this process and its readers."""
    batches = _mebibytes(buffer_bytes(options, process_count))
    if options.workers == 0:
        return f"{options.threads} reader thread(s) with up to {batches} of batches"
    shared = _mebibytes(shared_bytes(options, process_count))
    return (
        f"{options.workers} reader process(es) with up to {batches} of batches, {shared} of that "
        f"in shared memory, and about {_mebibytes(options.workers * _READER_BYTES)} of program"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size >= 1 << 20 else "1 MiB"
