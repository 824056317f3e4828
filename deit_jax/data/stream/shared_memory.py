"""Batches in shared memory that goes with the processes that use it, however they end.

A segment is a file in /dev/shm that outlives every process. Python's resource tracker removes those
of a killed program, unless it is killed too, as schedulers and containers do. Hence segments bear
the name of a *claim*: a file beside them, locked by the process that made it for as long as it
lives. Whose lock can be had is dead, and its segments are removed at the next start of anything.
"""

import contextlib
import errno
import fcntl
import functools
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy as np
from grain.multiprocessing import SharedMemoryArray

from deit_jax.data.worker_processes import at_end

FOLDER = Path("/dev/shm")
_PREFIX = "deit_jax-"
# Held while a segment is made, and for good by a reader that ends.
_MAKING = threading.Lock()


@functools.cache
def claim() -> str:
    """Return the name that this process's segments begin with; remove those of dead processes.

    "" where shared memory is no folder: the system then names the segments, and removes them.
    """
    if not FOLDER.is_dir():
        return ""
    remove_stale()
    while True:
        name = f"{_PREFIX}{secrets.token_hex(6)}"
        # Held until the process ends. Not inherited by programs that it starts.
        file = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            at_end(functools.partial(_unlink, name))
            return name
        # Another process took it for a dead one's before it was locked.
        os.close(file)


def remove_stale() -> None:
    """Remove the segments of this user's processes that have ended."""
    for name in {"-".join(path.name.split("-")[:2]) for path in FOLDER.glob(f"{_PREFIX}*")}:
        with contextlib.suppress(PermissionError, BlockingIOError):
            try:
                with _opened(name) as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(name)
            except FileNotFoundError:
                # Of a process that has ended as it should, but for these.
                remove(name)


def remove(name: str) -> None:
    """Remove all segments of a claim, and the claim."""
    for path in FOLDER.glob(f"{name}-*"):
        with contextlib.suppress(OSError):
            try:
                segment = shared_memory.SharedMemory(path.name)
            except ValueError:
                # Empty: whoever made it was killed before it had a size, or a line in the tracker.
                _unlink(path.name)
                continue
            segment.close()
            # Tells the resource tracker, which would complain otherwise.
            segment.unlink()
    _unlink(name)


def make_no_more(name: str) -> None:
    """Remove all segments of a claim; whoever makes one in this process waits for its end."""
    _MAKING.acquire()
    remove(name)


@dataclass(frozen=True)
class ToShared:
    """Copies the arrays of an element into shared memory; what a reader process does last.

    Attributes:
        name: from `claim`.
    """

    name: str

    def __call__(self, element: tuple[dict[str, np.ndarray[Any, Any]], Any]) -> tuple[Any, Any]:
        """Return the element with its batch in shared memory.

        Raises:
            OSError: if there is no room; writing would end the process by a bus error.
        """
        batch, damages = element
        return {key: self._copy(array) for key, array in batch.items()}, damages

    def _copy(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        name = f"{self.name}-{secrets.token_hex(8)}"
        with _MAKING:
            segment = shared_memory.SharedMemory(name, create=True, size=array.nbytes)
        try:
            with _opened(name) as file:
                os.posix_fallocate(file, 0, array.nbytes)
        except OSError as error:
            segment.close()
            segment.unlink()
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                f"{FOLDER} is full: a batch needs {array.nbytes >> 10:,} KiB and "
                f"{free_shared_bytes() >> 10:,} KiB are free. Look what is in it, enlarge it "
                "(docker run --shm-size) or use fewer data.workers, less data.prefetch, or threads."
            ) from error
        shared = SharedMemoryArray.from_shared_memory(segment, array.shape, array.dtype)
        np.copyto(shared, array)
        return shared


def free_shared_bytes() -> int:
    """Return how much room there is for segments."""
    usage = os.statvfs(FOLDER)
    return usage.f_bavail * usage.f_frsize


def total_bytes() -> int:
    """Return how much room there is when nothing is in it."""
    usage = os.statvfs(FOLDER)
    return usage.f_blocks * usage.f_frsize


@contextlib.contextmanager
def _opened(name: str) -> Iterator[int]:
    file = os.open(FOLDER / name, os.O_RDWR)
    try:
        yield file
    finally:
        os.close(file)


def _unlink(name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(FOLDER / name)
