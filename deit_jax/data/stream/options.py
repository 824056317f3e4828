"""What the input pipeline can be told, and what its buffers cost."""

from dataclasses import dataclass, field

from deit_jax.preprocessing import ASSUMED, EvalView
from deit_jax.schema.images import DataOptions

# Measured: private memory of a reader process beside its batches (Grain, NumPy, numba's kernel).
_READER_BYTES = 150 << 20


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What every stream of batches needs.

    Attributes:
        image_size: (height, width) of the images delivered.
        batch_size: images in a batch, over all processes.
        data: how they are read, and those of training chosen and cropped.
    """

    image_size: tuple[int, int]
    batch_size: int
    data: DataOptions = field(default_factory=DataOptions)


@dataclass(frozen=True, kw_only=True)
class TrainInput(InputOptions):
    """What the training stream needs beside that.

    Attributes:
        mix_group: consecutive rows that are mixed with each other, among which no image may stand
            twice (`repeated_augmentation.apart`); divides the batch. 0: copies stand side by side.
        seed: of the order and the crops; not negative.
    """

    mix_group: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvalInput(InputOptions):
    """What the evaluation stream needs beside that.

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
    held = 2 * options.data.prefetch + 2
    return options.data.workers * held * batch_bytes(options, process_count)


def buffer_bytes(options: InputOptions, process_count: int = 1) -> int:
    """Most bytes that batches of this process take before the training loop has asked for them.

    Without workers `prefetch` batches (as many as threads at least) wait or are being built; with
    workers each holds one for each thread besides what it shares (`shared_bytes`).
    """
    size, data = batch_bytes(options, process_count), options.data
    if data.workers == 0:
        return size * max(data.prefetch, data.threads)
    return data.workers * (data.threads + 1) * size + shared_bytes(options, process_count)


def describe_readers(options: InputOptions, process_count: int = 1) -> str:
    """Say what reads and how much memory that may take in this process and its readers."""
    data = options.data
    batches = _mebibytes(buffer_bytes(options, process_count))
    if data.workers == 0:
        return f"{data.threads} reader thread(s) with up to {batches} of batches"
    shared = _mebibytes(shared_bytes(options, process_count))
    return (
        f"{data.workers} reader process(es) with up to {batches} of batches, {shared} of that in "
        f"shared memory, and about {_mebibytes(data.workers * _READER_BYTES)} of program"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size >= 1 << 20 else "1 MiB"
