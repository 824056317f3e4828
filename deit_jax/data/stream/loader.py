"""Streams of batches, through Grain: one element is one step, so resuming is starting at a step."""

import gc
import signal
from collections.abc import Iterable, Iterator
from functools import partial

import grain
from absl import flags

from deit_jax.data.images.oddities import Oddity, OddityCount
from deit_jax.data.open_file_limit import check_open_files
from deit_jax.data.source import Source
from deit_jax.data.stream.batches import EvalBatches, HostBatch, Step, TrainBatches
from deit_jax.data.stream.damage_count import Damage, DamageCount
from deit_jax.data.stream.options import EvalInput, InputOptions, TrainInput, shared_bytes
from deit_jax.data.stream.shared_memory import (
    FOLDER,
    ToShared,
    claim,
    free_shared_bytes,
    make_no_more,
    total_bytes,
)
from deit_jax.data.worker_processes import (
    STOP_SIGNALS,
    follow_parent,
    signals_held_back,
    start_resource_tracker,
)


class Batches(Iterator[HostBatch]):
    """An iterator over batches that owns reader threads or processes; `close` ends them."""

    def __init__(
        self,
        steps: grain.MapDataset,
        options: InputOptions,
        damage: DamageCount,
        oddities: OddityCount,
    ):
        threads, prefetch = options.data.threads, options.data.prefetch
        workers = min(options.data.workers, len(steps))
        # Elements are whole batches, so Grain's default of 500 prefetched would exhaust memory.
        buffered = threads if workers else max(threads, prefetch)
        batches = steps.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffered)
        )
        if workers:
            # Grain reads its absl flags when it starts processes, which fails where no
            # `absl.app.run` has parsed any (google/grain issue 1355).
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            batches = _in_readers(batches, workers, prefetch)
        self._workers = workers
        self._damage = damage
        self._oddities = oddities
        self._iterator: grain.DatasetIterator | None = iter(batches)
        self._first = True

    def __next__(self) -> HostBatch:
        if self._iterator is None:
            raise StopIteration
        try:
            batch, found = self._next()
            self._oddities.add(one for one in found if isinstance(one, Oddity))
            self._damage.add(one for one in found if isinstance(one, Damage))
            return batch
        except RuntimeError as error:
            self.close()
            if "terminated unexpectedly" not in str(error):
                raise
            raise ChildProcessError(
                f"A reader process has died ({error}): often the system kills it for lack of "
                "memory; use fewer data.workers or data.prefetch and start the run again."
            ) from error
        except BaseException as error:
            self.close()
            check_open_files(error)
            raise

    def _next(self) -> Step:
        assert self._iterator is not None
        if not (self._workers and self._first):
            return next(self._iterator)
        # Grain starts its processes now, in threads that inherit what is held back.
        self._first = False
        with signals_held_back(*STOP_SIGNALS):
            return next(self._iterator)

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """The damaged records met so far, each once."""
        return self._damage.found

    @property
    def damaged_numbers(self) -> tuple[int, ...]:
        """Numbers of those records and of the ones known before: see `train_batches`."""
        return self._damage.numbers

    def close(self) -> None:
        """Stop the readers and free their buffers; may be called more than once.

        Afterwards, as after the last batch or an error, the iterator is exhausted.
        """
        if self._iterator is None:
            return
        self._iterator.close()
        self._iterator = None
        if self._workers:
            # Grain's iterators hold their last batches, in shared memory, in reference cycles;
            # left to the end of the interpreter they are reported as leaked.
            gc.collect()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def train_batches(
    source: Source,
    options: TrainInput,
    *,
    start_step: int = 0,
    num_steps: int,
    process_index: int = 0,
    process_count: int = 1,
    known_damaged: Iterable[int] = (),
) -> Batches:
    """Return the training stream from a step to the end of the run.

    The batch at a step depends on the source, the seed and the options of sampling and cropping
    alone: not on workers, threads, processes or where the stream was started. A damaged image is
    replaced by another one, which depends on nothing else either.

    Args:
        source: images and labels.
        options: sampling, cropping, reading.
        start_step: step of the first batch delivered.
        num_steps: steps of the whole run; `num_steps - start_step` batches are delivered.
        process_index: which process of the run this is.
        process_count: processes that share each global batch, in equal runs of rows.
        known_damaged: `damaged_numbers` of the stream up to `start_step`, so that they count
            against the limit and are not logged again. The batches do not depend on it.

    Returns:
        A closable iterator over dicts of "image" uint8 [rows, height, width, 3] and "label",
        "epoch", "index", "copy" int32 [rows], with rows = batch_size / process_count.

    Raises:
        ValueError: if the batch does not divide among the processes, the source is empty, or the
            steps make no sense; while iterating, if more records are damaged than
            `data.max_damaged` allows.
        ChildProcessError: while iterating, if a reader process has died.
    """
    check_stream(source, options, process_index, process_count)
    if not 0 <= start_step <= num_steps:
        raise ValueError(f"start_step {start_step} lies outside the {num_steps} steps of the run.")
    build = TrainBatches(source, options, process_index, process_count)
    remedy = "another image takes its place"
    damage = DamageCount(source.name, len(source), options.data.max_damaged, remedy, known_damaged)
    return _stream(build, options, start_step, num_steps, damage)


def eval_batches(
    source: Source, options: EvalInput, *, process_index: int = 0, process_count: int = 1
) -> Batches:
    """Every sound image exactly once over all processes, in the order of the source.

    All processes get `eval_steps` batches, all of one shape; rows beyond the data set and damaged
    images are masked.

    Args:
        source: images and labels.
        options: cropping, reading.
        process_index: which process of the run this is.
        process_count: processes that share each global batch.

    Returns:
        A closable iterator over dicts of "image" uint8 [rows, height, width, 3], "label" int32
        [rows] and "mask" bool [rows], with rows = batch_size / process_count.

    Raises:
        ValueError: as `train_batches`.
    """
    check_stream(source, options, process_index, process_count)
    build = EvalBatches(source, options, process_index, process_count)
    damage = DamageCount(source.name, len(source), options.data.max_damaged, "it is not evaluated")
    return _stream(build, options, 0, eval_steps(source, options), damage)


def eval_steps(source: Source, options: EvalInput) -> int:
    """Return how many batches an evaluation takes."""
    return -(-len(source) // options.batch_size)


def _in_readers(batches: grain.IterDataset, workers: int, buffered: int) -> grain.IterDataset:
    """Let processes make the batches; they and their shared memory end with this process."""
    start_resource_tracker()
    name = claim()
    if name:
        batches = batches.map(ToShared(name))
    return batches.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffered),
        worker_init_fn=partial(_begin_reader, name),
    )


def _begin_reader(name: str, number: int, count: int) -> None:
    # The main process decides what becomes of them.
    for signal_name in STOP_SIGNALS:
        signal.signal(getattr(signal, signal_name), signal.SIG_IGN)
    follow_parent(partial(make_no_more, name) if name else None)


def _stream(
    build: TrainBatches | EvalBatches,
    options: InputOptions,
    start: int,
    stop: int,
    damage: DamageCount,
) -> Batches:
    source = build.source
    oddities = OddityCount(source.name, len(source))
    return Batches(grain.MapDataset.range(start, stop).map(build), options, damage, oddities)


def check_stream(
    source: Source, options: InputOptions, process_index: int = 0, process_count: int = 1
) -> None:
    """Refuse what no stream could be made of.

    Raises:
        ValueError: as `train_batches`, or shared memory would not suffice.
    """
    if len(source) == 0:
        raise ValueError(f"{source.name} holds no images.")
    if not 0 <= process_index < process_count:
        raise ValueError(f"Process {process_index} of {process_count} does not exist.")
    if options.batch_size % process_count:
        raise ValueError(
            f"batch_size {options.batch_size} does not divide among {process_count} processes: "
            f"make it a multiple of {process_count}."
        )
    _check_shared_memory(options, process_count)


def _check_shared_memory(options: InputOptions, process_count: int) -> None:
    """Say before anything starts that /dev/shm is too small, and what is in it is not ours."""
    needed = shared_bytes(options, process_count)
    if not needed or not FOLDER.is_dir():
        return
    # First, so that what a killed run has left does not count.
    claim()
    free = free_shared_bytes()
    if needed > free:
        raise ValueError(
            f"{options.data.workers} workers may hold {needed >> 20} MiB in {FOLDER}, which has "
            f"{free >> 20} MiB free of {total_bytes() >> 20}: look what other programs have in it, "
            "enlarge it (docker run --shm-size), or use fewer workers, less prefetch, or threads."
        )
