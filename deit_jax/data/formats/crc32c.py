"""CRC-32C (Castagnoli) of byte strings, in NumPy: about as fast as decoding an image.

The bytes are cut into equal runs; the checksums of all runs advance together, one byte at a time,
and neighbours are then joined. Joining needs the effect of appending zeros, which is linear over
the bits of a checksum and so is a table look-up for each of its four bytes.
"""

import functools
from typing import Final

import numpy as np
from jaxtyping import UInt32

_POLYNOMIAL: Final = 0x82F63B78
_ONES: Final = 0xFFFFFFFF
_MOST_RUNS: Final = 1024
# Below this, a loop over the bytes is faster.
_SHORT: Final = 64


def crc32c(data: bytes) -> int:
    """Return the checksum that RFC 3720 (appendix B.4) defines."""
    if len(data) < _SHORT:
        value, effects = _ONES, _byte_list()
        for byte in data:
            value = effects[(value ^ byte) & 0xFF] ^ (value >> 8)
        return value ^ _ONES
    runs = min(_MOST_RUNS, 1 << (len(data) // 8).bit_length() - 1)
    length = -(-len(data) // runs)
    # Zeros in front do not change a checksum that starts from 0; and one that starts from all ones
    # is one from 0 over data whose first four bytes are inverted.
    padded = np.zeros(runs * length, np.uint8)
    start = len(padded) - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF
    state = np.zeros(runs, np.uint32)
    table = _byte_table()
    for column in np.ascontiguousarray(padded.reshape(runs, length).T):
        state = table[(state ^ column) & 0xFF] ^ (state >> 8)
    while len(state) > 1:
        state = _look_up(_zeros_tables(length), state[0::2]) ^ state[1::2]
        length *= 2
    return int(state[0]) ^ _ONES


@functools.cache
def _byte_table() -> UInt32[np.ndarray, "256"]:
    """Return the effect of one byte."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table & 1) * np.uint32(_POLYNOMIAL) ^ (table >> 1)
    return table


@functools.cache
def _byte_list() -> list[int]:
    return _byte_table().tolist()


@functools.lru_cache(maxsize=1024)
def _zeros_tables(count: int) -> UInt32[np.ndarray, "4 256"]:
    """Return the effect of so many zero bytes on each byte of a checksum."""
    if count == 1:
        state = np.arange(256, dtype=np.uint32)[None] << np.array([[0], [8], [16], [24]], np.uint32)
        return _byte_table()[state & 0xFF] ^ (state >> 8)
    half = _zeros_tables(count // 2)
    twice = _look_up(half, half)
    return _look_up(_zeros_tables(1), twice) if count % 2 else twice


def _look_up(tables: np.ndarray, state: np.ndarray) -> np.ndarray:
    return (
        tables[0][state & 0xFF]
        ^ tables[1][(state >> 8) & 0xFF]
        ^ tables[2][(state >> 16) & 0xFF]
        ^ tables[3][state >> 24]
    )
