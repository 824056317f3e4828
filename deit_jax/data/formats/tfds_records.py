"""The records of data sets of TensorFlow Datasets, in the two formats of their files.

A record of TFRecord is its length (8 bytes), a checksum of that (4), the data and its checksum;
checksums are CRC-32C, masked (tensorflow/core/lib/io/record_writer.h).
"""

import functools
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import google_crc32c
import numpy as np
from jaxtyping import Int64

from deit_jax.data.formats.prepared import most_open, open_shard

_LENGTH: Final = struct.Struct("<Q")
_CHECKSUM: Final = struct.Struct("<I")
_HEADER: Final = _LENGTH.size + _CHECKSUM.size
_MASK: Final = 0xA282EAD8


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

    def __reduce__(self) -> tuple[type["ArrayRecordFiles"], tuple[()]]:
        return ArrayRecordFiles, ()


FILES: Final[dict[str, Callable[[], RecordFiles]]] = {
    "array_record": ArrayRecordFiles,
    "tfrecord": TfRecordFiles,
}


def find_records(path: Path) -> Int64[np.ndarray, "records 2"]:
    """Return the position and length of the data of every record, reading only what lies between.

    Raises:
        ValueError: if the file is damaged there or ends in the middle of a record.
    """
    size = os.path.getsize(path)
    found = []
    position = 0
    with open(path, "rb", buffering=0) as file:
        while position < size:
            header = os.pread(file.fileno(), _HEADER, position)
            if len(header) < _HEADER:
                raise ValueError(f"{path} ends in the middle of a record.")
            length = _LENGTH.unpack_from(header)[0]
            if _masked_crc32c(header[: _LENGTH.size]) != _CHECKSUM.unpack(header[-4:])[0]:
                raise ValueError(f"{path} is damaged at byte {position:,}: no record begins there.")
            found.append((position + _HEADER, length))
            position += _HEADER + length + _CHECKSUM.size
    if position > size:
        raise ValueError(f"{path} ends in the middle of a record.")
    return np.array(found, np.int64).reshape(-1, 2)


def read_tfrecord(path: Path, position: int, length: int) -> bytes:
    """Read the data of one record.

    Raises:
        ValueError: if it does not have its checksum.
    """
    # Opened each time: ImageNet has 1,024 files, as many as a process may commonly hold open.
    with open(path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), length + _CHECKSUM.size, position)
    stored = data[length:]
    if len(stored) < _CHECKSUM.size or _masked_crc32c(data[:length]) != _CHECKSUM.unpack(stored)[0]:
        raise ValueError("the record does not have its checksum: it is damaged")
    return data[:length]


def _masked_crc32c(data: bytes) -> int:
    """Return the checksum as record files store it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
