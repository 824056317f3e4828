"""What tells the images of one data set from those of another, or of the same after a change.

Two digests. Every source knows the one of its `records`: names, sizes and labels, as far as they
are known without reading images. The one of `contents` is over the bytes of the images themselves:
of all of them in a small data set, of evenly spaced ones in a large.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from deit_jax.data.formats.packed_names import PackedNames
    from deit_jax.data.source import Source

_SAMPLE: Final = 256
# A data set is small with fewer bytes and images than this: it is read within seconds.
_SMALL_BYTES: Final = 64 << 20
_SMALL_COUNT: Final = 10_000
# Asking for a size takes a few microseconds on a local disk, and up to a millisecond elsewhere.
_MOST_SIZES: Final = 100_000
_THREADS: Final = 16


def identity_of(source: "Source") -> dict[str, Any]:
    """Return number of images and classes and the digests that tell a data set from another.

    `records` changes where an image comes, goes, or gets another name, size or label; `contents`
    where an image that was looked at has other bytes.
    """
    return {
        "images": len(source),
        "classes": len(source.class_names),
        "records": combine([*source.class_names, source.identity]),
        "contents": contents(source),
    }


def contents(source: "Source") -> str:
    """SHA-256 over labels and bytes of all images of a small data set, else of some of them."""
    count = len(source)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda index: _of_record(source, index), spaced(count, _SAMPLE)))
        expected = count * sum(size for size, _ in found) / max(1, len(found))
        if len(found) < count <= _SMALL_COUNT and expected <= _SMALL_BYTES:
            found = list(pool.map(lambda index: _of_record(source, index), range(count)))
    return combine(digest for _, digest in found)


def combine(parts: Iterable[bytes | str]) -> str:
    """SHA-256 over parts, each with its length: moving bytes from one to the next is a change."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def of_numbers(*arrays: Sequence[int] | np.ndarray) -> str:
    """SHA-256 over whole numbers, whatever integer type they are held in."""
    return combine(np.asarray(array).astype("<i8").tobytes() for array in arrays)


def sizes_of_files(root: str, paths: "PackedNames") -> list[int]:
    """Return sizes in bytes, -1 of files that are not there; of many files only of some.

    Args:
        root: folder that the paths are relative to.
        paths: in the order of the source.
    """

    def sizes(indices: np.ndarray) -> list[int]:
        return [_size(os.path.join(root, paths[index])) for index in indices.tolist()]

    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(sizes, np.array_split(spaced(len(paths), _MOST_SIZES), _THREADS))
        return [size for part in parts for size in part]


def spaced(count: int, most: int) -> np.ndarray:
    """Return at most `most` of 0 .. count - 1, evenly spaced, the first and the last among them."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _of_record(source: "Source", index: int) -> tuple[int, bytes]:
    """Return bytes and digest of one image; training copes with some that cannot be read."""
    try:
        record = source[int(index)]
    except MemoryError:
        raise
    except Exception:
        return 0, b""
    image = record.image
    data = image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes()
    return len(data), hashlib.sha256(f"{record.label} ".encode() + data).digest()
