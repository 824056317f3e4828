"""Reading a prepared data set again, all of it, to name what has been damaged or is unusual."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deit_jax.data.formats.prepared import (
    open_shard,
    read_prepared_labels,
    read_prepared_manifest,
    unpack_record,
)
from deit_jax.data.images.decode import decode
from deit_jax.data.images.oddities import oddities
from deit_jax.data.prepare.jobs import in_processes
from deit_jax.files import sentence


class Verified(NamedTuple):
    """What was found.

    Attributes:
        problems: one sentence for each thing that is wrong, with the file's or image's name.
        oddities: by what is unusual about sound images (see `oddities`), their names.
    """

    problems: list[str]
    oddities: dict[str, list[str]]


def verify(
    directory: Path, workers: int = 1, progress: Callable[[int], None] = lambda images: None
) -> Verified:
    """Read everything again: hashes, counts, labels, every record and every image.

    Args:
        directory: what `prepare` wrote.
        workers: processes.
        progress: called with the number of images read since the last call.

    Raises:
        FileNotFoundError, ValueError: if it holds no finished data set.
        ChildProcessError: if a worker has died.
    """
    manifest = read_prepared_manifest(directory)
    # What was resized no longer shows what was odd about it: `prepare` has noted it.
    noted = manifest.get("unusual") if manifest["short_side"] else None
    every = Verified([], noted or {})
    shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    labels = [
        part
        for split, content in manifest["splits"].items()
        for part in _labels_of_shards(directory, split, content["shards"], every.problems)
    ]
    shared = _Task(directory, shards, labels, len(manifest["classes"]), noted is None)
    numbers = list(range(len(shards)))
    found: dict[int, Verified] = {}
    for number, result in in_processes(_verify_shard, shared, numbers, workers):
        found[number] = result
        progress(shards[number]["images"])
    # In the order of the shards, whichever was read first.
    for number in numbers:
        every.problems.extend(found[number].problems)
        for oddity, names in found[number].oddities.items():
            every.oddities.setdefault(oddity, []).extend(names)
    return every


class _Task(NamedTuple):
    """What every shard needs."""

    directory: Path
    shards: list[dict[str, Any]]
    labels: list[np.ndarray]
    num_classes: int
    tells_oddities: bool


def _labels_of_shards(
    directory: Path, split: str, shards: list[dict[str, Any]], problems: list[str]
) -> list[np.ndarray]:
    """Return what the split's file of labels says of each shard; nothing if it is damaged."""
    ends = np.cumsum([shard["images"] for shard in shards], dtype=np.int64).tolist()
    try:
        labels = read_prepared_labels(directory, split, ends[-1] if ends else 0)
    except (OSError, ValueError) as error:
        problems.append(sentence(error))
        return [np.zeros(0, np.int32) for _ in shards]
    return [labels[end - shard["images"] : end] for shard, end in zip(shards, ends, strict=True)]


def _verify_shard(task: _Task, number: int) -> Verified:
    shard = task.shards[number]
    path = task.directory / shard["file"]
    if not path.is_file():
        return Verified([f"{path} is missing."], {})
    found = Verified([], {})
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
            found.problems.append(f"{path} has changed since it was written (SHA-256).")
    try:
        reader = open_shard(path)
        count = reader.num_records()
    except RuntimeError as error:
        found.problems.append(f"{path} cannot be opened: {' '.join(str(error).split())}.")
        return found
    if count != shard["images"]:
        found.problems.append(f"{path} holds {count} records instead of {shard['images']}.")
    read = [
        _verify_record(reader, position, f"{path}, record {position}", task, found)
        for position in range(count)
    ]
    listed = task.labels[number].tolist()
    others = sum(
        label is not None and label != other for label, other in zip(read, listed, strict=False)
    )
    if others:
        found.problems.append(f"{path}: the file of labels says otherwise of {others} records.")
    return found


def _verify_record(
    reader: Any, position: int, name: str, task: _Task, found: Verified
) -> int | None:
    """Note what is wrong with a record; return its label if it can be read."""
    try:
        record = unpack_record(reader.read([position])[0])
        name = f"{name} ({record.name})"
        assert isinstance(record.image, bytes)
        decode(record.image)
        unusual = oddities(record.image, record.name) if task.tells_oddities else []
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        found.problems.append(f"{name}: {' '.join(str(error).split())}.")
        return None
    if not 0 <= record.label < task.num_classes:
        found.problems.append(f"{name} has the impossible label {record.label}.")
    for oddity in unusual:
        found.oddities.setdefault(oddity, []).append(record.name)
    return record.label
