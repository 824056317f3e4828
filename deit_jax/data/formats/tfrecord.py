"""TFRecord files and the examples in them, without TensorFlow.

A record is its length (8 bytes), a checksum of that (4), the data and its checksum; checksums are
CRC-32C, masked (tensorflow/core/lib/io/record_writer.h). The data is a `tf.train.Example` in the
wire format of protocol buffers (tensorflow/core/example/feature.proto): a map from names to lists
of bytes, floats or integers.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import google_crc32c
import numpy as np
from jaxtyping import Int64

_LENGTH: Final = struct.Struct("<Q")
_CHECKSUM: Final = struct.Struct("<I")
_HEADER: Final = _LENGTH.size + _CHECKSUM.size
_MASK: Final = 0xA282EAD8

Features = dict[str, list[bytes] | list[int]]


def masked_crc32c(data: bytes) -> int:
    """Return the checksum as record files store it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


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
            if masked_crc32c(header[: _LENGTH.size]) != _CHECKSUM.unpack(header[-4:])[0]:
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
    if len(stored) < _CHECKSUM.size or masked_crc32c(data[:length]) != _CHECKSUM.unpack(stored)[0]:
        raise ValueError("the record does not have its checksum: it is damaged")
    return data[:length]


def read_example(data: bytes) -> Features:
    """Return the features of a `tf.train.Example`; floats are left out.

    Raises:
        ValueError: if the bytes are no such example.
    """
    features: Features = {}
    try:
        for number, block in _fields(data):
            for entry_number, entry in _fields(_bytes(block)) if number == 1 else ():
                if entry_number == 1:
                    pair = dict(_fields(_bytes(entry)))
                    features[_bytes(pair.get(1, b"")).decode()] = _values(_bytes(pair.get(2, b"")))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("the record is no example") from error
    return features


def _values(data: bytes) -> list[bytes] | list[int]:
    """Return the content of a feature: a list of bytes (field 1), floats (2) or integers (3)."""
    for kind, content in _fields(data):
        if kind == 1:
            return [_bytes(value) for _, value in _fields(_bytes(content))]
        if kind == 3:
            return list(_integers(_bytes(content)))
    return []


def _integers(data: bytes) -> Iterator[int]:
    """Integers, packed or one by one, as 64 bits with a sign."""
    for _, value in _fields(data):
        if isinstance(value, int):
            yield _signed(value)
            continue
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            yield _signed(number)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Return the fields of a message: number and content."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("the record is no example")
        if position + length > len(data):
            raise ValueError("the record is no example")
        yield number, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number in groups of seven bits, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position
        shift += 7
        if shift > 63:
            raise ValueError("the record is no example")


def _bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("the record is no example")
    return value
