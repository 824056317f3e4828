"""Data sets that `python -m deit_jax prepare` has written: ArrayRecord shards and a manifest.

A record is a label (4 bytes, little endian), the length of the image's name (2 bytes), the name
in UTF-8 and the encoded image.
"""

import bisect
import functools
import json
import struct
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int32

from deit_jax.data.sources import Record

MANIFEST: Final = "manifest.json"
FORMAT: Final = "deit_jax prepared 1"
_HEADER: Final = struct.Struct("<iH")


def pack(record: Record) -> bytes:
    """The bytes of a record whose image is encoded; names are cut at 65,535 bytes."""
    assert isinstance(record.image, bytes)
    name = record.name.encode("utf-8", "surrogateescape")[:0xFFFF]
    return _HEADER.pack(record.label, len(name)) + name + record.image


def unpack(data: bytes) -> Record:
    """The opposite of `pack`.

    Raises:
        ValueError: if the bytes are too few.
    """
    if len(data) < _HEADER.size:
        raise ValueError("the record is too short")
    label, length = _HEADER.unpack_from(data)
    start = _HEADER.size + length
    name = data[_HEADER.size : start].decode("utf-8", "replace")
    return Record(data[start:], label, name)


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """Reads the description of a prepared data set.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is of another format.
    """
    path = Path(directory).expanduser() / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"No prepared data set in {str(directory)!r}: expected {MANIFEST}, which "
            "`python -m deit_jax prepare` writes when it has finished."
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path} is of format {manifest.get('format')!r}, not {FORMAT!r}.")
    return manifest


class PreparedSource:
    """One split of a prepared data set, in the order of the source it was made from.

    Each process opens a shard when it first reads from it.

    Args:
        directory: what `prepare` wrote.
        split: such as "train".

    Raises:
        FileNotFoundError: if no prepared data set, or not all of it, lies there.
        ValueError: if there is no such split.
    """

    def __init__(self, directory: str, split: str):
        manifest = read_manifest(directory)
        if split not in manifest["splits"]:
            raise ValueError(
                f"{directory} has no split {split!r}: use {', '.join(manifest['splits'])}."
            )
        self.root = Path(directory).expanduser()
        shards = manifest["splits"][split]["shards"]
        self.files = [shard["file"] for shard in shards]
        missing = [name for name in self.files if not (self.root / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.root} lacks {len(missing)} files, such as {missing[0]}."
            )
        self.name = f"{self.root.name}/{split}"
        self.class_names = tuple(manifest["classes"])
        self._ends = np.cumsum([shard["images"] for shard in shards]).tolist()
        self._split = split
        self._open_lock()

    def _open_lock(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[int, Any] = {}

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, "images"]:
        """The label of every image, from a file beside the shards."""
        return np.load(self.root / f"{self._split}-labels.npy", allow_pickle=False)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:
        shard = bisect.bisect_right(self._ends, index)
        position = index - (self._ends[shard - 1] if shard else 0)
        try:
            return unpack(self._reader(shard).read([position])[0])
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"{self.files[shard]}, record {position}: {error}") from error

    def _reader(self, shard: int) -> Any:
        if shard not in self._readers:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = open_shard(self.root / self.files[shard])
        return self._readers[shard]

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_lock", "_readers", "labels")
        return {name: value for name, value in self.__dict__.items() if name not in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_lock()


def open_shard(path: Path) -> Any:
    """Opens an ArrayRecord file for reading single records.

    Raises:
        RuntimeError: if it is damaged.
    """
    from array_record.python import array_record_module

    return array_record_module.ArrayRecordReader(
        str(path), options="readahead_buffer_size:0", file_reader_buffer_size=32768
    )
