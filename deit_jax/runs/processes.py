"""Agreement between the processes of a run, where one alone must not decide."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np
from jax.experimental import multihost_utils

# Network file systems show a file to other machines after some seconds.
_VISIBLE_SECONDS: Final = 20.0


def all_processes(condition: bool) -> bool:
    """Return whether a condition holds on every process; all of them must ask, at the same point.

    What follows may then be a collective operation: a process that has failed before it would
    leave the others waiting.
    """
    if jax.process_count() == 1:
        return condition
    return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))


def any_process(condition: bool) -> bool:
    """Return whether a condition holds on one process at least; all of them must ask, as above."""
    return not all_processes(not condition)


def fetched(tree: Any) -> Any:
    """Return arrays as numpy's, also those that are split over processes; all must ask."""

    def fetch(leaf: Any) -> Any:
        if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)


def from_first(arrays: Any) -> Any:
    """Return the first process's arrays on every process; all must ask, with arrays of one form."""
    if jax.process_count() == 1:
        return arrays
    return multihost_utils.broadcast_one_to_all(arrays)


def all_see(numbers: Sequence[int]) -> list[int]:
    """Return the first process's numbers, such as the steps that it finds on disk, everywhere."""
    if jax.process_count() == 1:
        return list(numbers)
    count = int(from_first(np.asarray(len(numbers), np.int32)))
    if not count:
        return []
    mine = np.resize(np.asarray([*numbers, 0], np.int32), count)
    return [int(number) for number in from_first(mine)]


def from_all(numbers: Iterable[int]) -> tuple[int, ...]:
    """Return the numbers of all processes, each once, in order; all must ask, at the same point."""
    mine = sorted(set(numbers))
    if jax.process_count() == 1:
        return tuple(mine)
    counts = multihost_utils.process_allgather(np.asarray(len(mine), np.int32))
    most = int(np.max(counts))
    if not most:
        return ()
    gathered = multihost_utils.process_allgather(np.resize(np.asarray([*mine, -1], np.int32), most))
    rows = zip(np.asarray(gathered), np.ravel(counts), strict=True)
    return tuple(sorted({int(number) for row, count in rows for number in row[:count]}))


def require_shared(path: Path) -> None:
    """Check that all processes see the file that the first has written, with the same content.

    Raises:
        ValueError: one of them does not; on all.
    """
    if jax.process_count() == 1:
        return
    wanted = from_first(_digest(path))
    deadline = time.monotonic() + _VISIBLE_SECONDS
    while not (same := np.array_equal(_digest(path), wanted)) and time.monotonic() < deadline:
        time.sleep(0.5)
    if not all_processes(same):
        raise ValueError(
            f"Not all processes see the {path.name} that the first has written to {path.parent}; "
            "choose a --workdir on a file system that all their machines share."
        )


def _digest(path: Path) -> np.ndarray:
    content = path.read_bytes() if path.is_file() else b""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
