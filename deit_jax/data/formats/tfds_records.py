"""The records of data sets of TensorFlow Datasets, in the two formats of their files."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from jaxtyping import Int64

from deit_jax.data.formats.prepared import most_open, open_shard
from deit_jax.data.formats.tfrecord import find_records, read_tfrecord


class RecordFiles(Protocol):
    """Files that are read at any position; each process that gets a copy opens them itself."""

    def count(self, path: Path) -> int:
        """Return how many records a file holds.

        Raises:
            ValueError: the file is damaged; with the reason.
        """
        ...

    def read(self, path: Path, number: int) -> bytes:
        """Return a record of a file that was counted.

        Raises:
            ValueError: it is damaged.
        """
        ...

    def fingerprint(self, parts: list[tuple[Path, int, int]]) -> str:
        """Of some records: files, number of the first one in each, and how many."""
        ...


class TfRecordFiles:
    """Counting searches a file for where its records begin: seconds for all of ImageNet."""

    def __init__(self) -> None:
        self._where: dict[Path, Int64[np.ndarray, "records 2"]] = {}

    def count(self, path: Path) -> int:
        """See `RecordFiles`."""
        if path not in self._where:
            self._where[path] = find_records(path)
        return len(self._where[path])

    def read(self, path: Path, number: int) -> bytes:
        """See `RecordFiles`."""
        position, length = self._where[path][number].tolist()
        return read_tfrecord(path, position, length)

    def fingerprint(self, parts: list[tuple[Path, int, int]]) -> str:
        """See `RecordFiles`: of where the records lie."""
        where = [self._where[path][first : first + count] for path, first, count in parts]
        return hashlib.sha256(np.concatenate(where).astype("<i8").tobytes()).hexdigest()


class ArrayRecordFiles:
    """As many files stay open as `most_open` allows."""

    def __init__(self) -> None:
        self._reader = functools.lru_cache(most_open())(open_shard)

    def count(self, path: Path) -> int:
        """See `RecordFiles`."""
        try:
            reader = self._reader(path)
            count = reader.num_records()
            if not count:
                # A damaged file is opened all the same, and says so when it is read from.
                reader.read([0])
            return count
        except IndexError:
            return 0
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            if "out of bound" in reason:
                return 0
            raise ValueError(f"{path} is damaged or incomplete: {reason}.") from error

    def read(self, path: Path, number: int) -> bytes:
        """See `RecordFiles`."""
        try:
            return self._reader(path).read([number])[0]
        except (RuntimeError, IndexError) as error:
            raise ValueError(" ".join(str(error).split())) from error

    def fingerprint(self, parts: list[tuple[Path, int, int]]) -> str:
        """See `RecordFiles`: of the sizes of the files."""
        return " ".join(str(path.stat().st_size) for path, _, _ in parts)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


FILES: Final[dict[str, Callable[[], RecordFiles]]] = {
    "array_record": ArrayRecordFiles,
    "tfrecord": TfRecordFiles,
}
