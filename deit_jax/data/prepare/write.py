"""Writing a prepared data set: one shard is one job, and what is finished is kept after a kill."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deit_jax.data.formats.prepared import FORMAT, MANIFEST, labels_path, pack_record
from deit_jax.data.images.names import is_left_behind
from deit_jax.data.prepare.checked_records import Resize, checked_record
from deit_jax.data.prepare.jobs import in_processes
from deit_jax.data.source import Source
from deit_jax.data.stream.damage_count import Damage
from deit_jax.data.stream.read_or_replace import DamagedRecordError
from deit_jax.files import is_partial, read_json, remove_partials, write_json, written_whole

_PLAN = "plan.json"


class _Shard(NamedTuple):
    split: str
    file: str
    start: int
    stop: int


class _Task(NamedTuple):
    """What every shard needs."""

    sources: dict[str, Source]
    directory: Path
    resizing: Resize


class _Written(NamedTuple):
    """What became of the images of a shard.

    Attributes:
        labels: of those that were written.
        damaged: those that were not.
        unusual: (oddity, name) of files that were not written as they are.
    """

    labels: list[int]
    damaged: list[Damage]
    unusual: list[tuple[str, str]]


def write_prepared(
    sources: dict[str, Source],
    directory: Path,
    *,
    resizing: Resize,
    shard_images: int,
    workers: int,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Write all splits; go on where an earlier call with the same options was stopped.

    Args:
        sources: by name of the split; all with the same classes.
        directory: where to.
        resizing: see `Resize`.
        shard_images: images in a file.
        workers: processes.
        progress: called with the number of images that have been dealt with since the last call.

    Returns:
        The manifest, which was also written; its "damaged" lists what was left out, and its
        "unusual" by oddity the images that were odd before they were resized.

    Raises:
        ValueError: if the directory holds another data set, or one of other options.
        ChildProcessError: if a worker has died; the call may be repeated.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _check_plan(directory, sources, resizing, shard_images)
    jobs = [
        shard for split, source in sources.items() for shard in _shards(split, source, shard_images)
    ]
    waiting = []
    for job in jobs:
        if _report_path(directory, job).is_file():
            progress(job.stop - job.start)
        else:
            waiting.append(job)
    shared = _Task(sources, directory, resizing)
    for job, _ in in_processes(write_shard, shared, waiting, workers):
        progress(job.stop - job.start)
    return _finish(directory, sources, jobs, resizing)


def write_shard(task: _Task, shard: _Shard) -> None:
    """Write one shard and, when it is safe on disk, its report."""
    path = task.directory / shard.file
    with written_whole(path) as partial:
        written = _write_records(task, shard, partial)
        with open(partial, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = partial.stat().st_size
    report = {
        "file": shard.file,
        "images": len(written.labels),
        "bytes": size,
        "sha256": digest,
        **written._asdict(),
    }
    write_json(_report_path(task.directory, shard), report, indent=None)


def _write_records(task: _Task, shard: _Shard, partial: Path) -> _Written:
    """Write what is sound."""
    from array_record.python import array_record_module

    source, written = task.sources[shard.split], _Written([], [], [])
    try:
        writer = array_record_module.ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
        for index in range(shard.start, shard.stop):
            try:
                record, unusual = checked_record(source, index, task.resizing)
            except DamagedRecordError as error:
                written.damaged.append(Damage(index, error.name, error.reason))
                continue
            writer.write(pack_record(record))
            written.labels.append(record.label)
            written.unusual.extend((oddity, record.name) for oddity in unusual)
        writer.close()
    except RuntimeError as error:
        # "write() failed: No space left on device; writing ...", from the last two calls.
        reason = str(error).partition(";")[0].removeprefix("write() failed: ")
        raise OSError(f"{task.directory / shard.file} cannot be written: {reason}.") from error
    return written


def _shards(split: str, source: Source, size: int) -> Iterator[_Shard]:
    count = -(-len(source) // size)
    for number in range(count):
        file = f"{split}-{number:05}-of-{count:05}.array_record"
        yield _Shard(split, file, number * size, min((number + 1) * size, len(source)))


def _report_path(directory: Path, shard: _Shard) -> Path:
    return (directory / shard.file).with_suffix(".json")


def _check_plan(
    directory: Path, sources: dict[str, Source], resizing: Resize, shard_images: int
) -> None:
    """Parts written under one plan must not be completed under another."""
    if (directory / MANIFEST).exists():
        raise ValueError(
            f"{directory} already holds a finished data set; choose another or remove it."
        )
    plan = {
        "resize": list(resizing),
        "shard_images": shard_images,
        "sources": {
            split: [source.name, len(source), list(source.class_names), _fingerprint(source)]
            for split, source in sources.items()
        },
    }
    path = directory / _PLAN
    foreign = [
        entry.name
        for entry in directory.iterdir()
        if not (is_partial(entry.name) or is_left_behind(entry.name))
    ]
    if path.exists() or not foreign:
        remove_partials(directory)
    if path.exists():
        if read_json(path) != plan:
            raise ValueError(
                f"{directory} holds part of a data set with other options or images: repeat the "
                "command that began it, or remove the directory."
            )
    elif foreign:
        raise ValueError(f"{directory} is not empty; choose another directory.")
    else:
        write_json(path, plan, indent=None)


def _fingerprint(source: Source) -> str:
    """Tell apart data sets of one name and size."""
    # Where labels are only known after reading everything.
    if cheaper := getattr(source, "fingerprint", ""):
        return cheaper
    return hashlib.sha256(np.asarray(source.labels, "<i4").tobytes()).hexdigest()


def _finish(
    directory: Path, sources: dict[str, Source], jobs: list[_Shard], resizing: Resize
) -> dict[str, Any]:
    """Put the reports together; the manifest comes last and makes the data set valid."""
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "classes": list(next(iter(sources.values())).class_names),
        "short_side": resizing.short_side,
        "quality": resizing.quality if resizing.short_side else 0,
        "splits": {},
        "damaged": [],
        "unusual": {},
    }
    for split, source in sources.items():
        reports = [read_json(_report_path(directory, job)) for job in jobs if job.split == split]
        labels = [label for report in reports for label in report.pop("labels")]
        for report in reports:
            manifest["damaged"] += [[split, *damage] for damage in report.pop("damaged")]
            # Shards that an earlier version wrote, before this one went on, have none.
            for oddity, name in report.pop("unusual", []):
                manifest["unusual"].setdefault(oddity, []).append(name)
        path = labels_path(directory, split)
        with written_whole(path) as partial, open(partial, "wb") as file:
            np.save(file, np.array(labels, np.int32))
        counts = np.bincount(labels, minlength=source.num_classes)
        manifest["splits"][split] = {
            "source": source.name,
            "images": len(labels),
            "images_of_each_class": counts.tolist(),
            "shards": reports,
        }
    write_json(directory / MANIFEST, manifest, indent=None)
    for job in jobs:
        _report_path(directory, job).unlink()
    (directory / _PLAN).unlink()
    return manifest
