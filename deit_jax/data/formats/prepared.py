"""Data sets that `python -m deit_jax prepare` has written: ArrayRecord shards and a manifest.

A record is a label (4 bytes, little endian), the length of the image's name (2 bytes), the name
in UTF-8 and the encoded image.
"""

import bisect
import functools
import json
import resource
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int32

from deit_jax.data.identity import combine
from deit_jax.data.source import Record
from deit_jax.files import read_json
from deit_jax.messages import in_short

MANIFEST: Final = "manifest.json"
FORMAT: Final = "deit_jax prepared 1"
_HEADER: Final = struct.Struct("<iH")


def pack_record(record: Record) -> bytes:
    """Return the bytes of a record whose image is encoded; names are cut at 65,535 bytes."""
    assert isinstance(record.image, bytes)
    name = record.name.encode("utf-8", "surrogateescape")[:0xFFFF]
    return _HEADER.pack(record.label, len(name)) + name + record.image


def unpack_record(data: bytes) -> Record:
    """Return the opposite of `pack_record`.

    Raises:
        ValueError: if the bytes are too few.
    """
    if len(data) < _HEADER.size:
        raise ValueError("the record is too short")
    label, length = _HEADER.unpack_from(data)
    start = _HEADER.size + length
    name = data[_HEADER.size : start].decode("utf-8", "replace")
    return Record(data[start:], label, name)


def read_prepared_manifest(directory: str | Path) -> dict[str, Any]:
    """Read the description of a prepared data set.

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
    manifest = read_json(path)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path} is of format {found!r}, not {FORMAT!r}.")
    return manifest


def labels_path(directory: Path, split: str) -> Path:
    """Return the file with the labels of all images of a split, so that no image need be read."""
    return directory / f"{split}-labels.npy"


def read_prepared_labels(directory: Path, split: str, count: int) -> Int32[np.ndarray, " images"]:
    """Read the labels of the `count` images of a split.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged or of another number of images.
    """
    path = labels_path(directory, split)
    try:
        labels = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {in_short(error)}.") from error
    if labels.shape != (count,):
        raise ValueError(f"{path} is damaged: it has not one label for each of {count:,} images.")
    return labels


class PreparedSource:
    """One split of a prepared data set, in the order of the source it was made from.

    Each process opens a shard when it reads from it, and keeps those open that were read last: at
    most `most_open()`, and for a moment one more for each thread.

    Args:
        directory: what `prepare` wrote.
        split: such as "train".

    Raises:
        FileNotFoundError: if no prepared data set, or not all of it, lies there.
        ValueError: if there is no such split.
    """

    def __init__(self, directory: str, split: str):
        manifest = read_prepared_manifest(directory)
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
        self._shards = json.dumps(shards, sort_keys=True)
        self._keep_readers()

    def _keep_readers(self) -> None:
        # What falls out is closed as soon as no thread reads from it.
        self._reader = functools.lru_cache(most_open())(open_shard)

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, " images"]:
        """The label of every image, from a file beside the shards."""
        return read_prepared_labels(self.root, self._split, len(self))

    @property
    def identity(self) -> str:
        """Of the manifest, which has the checksum of each shard."""
        return combine([self._shards])

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Record:
        shard = bisect.bisect_right(self._ends, index)
        position = index - (self._ends[shard - 1] if shard else 0)
        try:
            return unpack_record(self._reader(self.root / self.files[shard]).read([position])[0])
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"{self.files[shard]}, record {position}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        own = ("_reader", "labels")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._keep_readers()


def most_open() -> int:
    """Return how many files a source keeps open.

    A third of what the process may have open, so that beside the images for training and those for
    evaluation a third is left; and at most 1,024, into which ImageNet's 626 fit, at about 32 kB
    each. Opening one takes 0.1 to 0.2 ms, up to a fifth of what decoding an image takes: too long
    to do it each time.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1024 if most == resource.RLIM_INFINITY else min(1024, max(1, most // 3))


def open_shard(path: Path) -> Any:
    """Open an ArrayRecord file for reading single records.

    Raises:
        RuntimeError: if it is damaged.
    """
    from array_record.python import array_record_module

    # Without the second option opening reads the last 1 MB of the file and takes twice as long.
    options = "readahead_buffer_size:0,footer_prefetch_bytes:65536"
    return array_record_module.ArrayRecordReader(
        str(path), options=options, file_reader_buffer_size=32768
    )
