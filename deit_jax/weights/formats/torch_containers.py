"""The two containers of a `.pth` file, checked when they are opened and when storages are read.

Both have the objects as `content`, `bytes_of` reads a storage, and `check_rest` what is left.
"""

import io
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from deit_jax.inert_pickle import RefusedError, read_pickle
from deit_jax.messages import quoted
from deit_jax.weights.formats.torch_objects import BUILDERS, CONSTANTS, Storage, storage_of

ZIP_MAGIC = b"PK\x03\x04"
_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_PICKLED_MAGIC = b"\x8a\x0a" + _STREAM_MAGIC.to_bytes(10, "little") + b"."
_STREAM_VERSION = 1001
_LARGEST_PICKLE = 2**24
_CHUNK = 2**20
_ZIP_END = 22  # bytes, of a record without a comment


def is_pth(head: bytes) -> bool:
    """Return whether a file that begins so is one of PyTorch, or a zip archive at least."""
    # Newer pickle protocols put the length of a frame before the number.
    is_stream = head[:1] == b"\x80" and _PICKLED_MAGIC in head[:25]
    return head.startswith(ZIP_MAGIC) or is_stream


class ZipContainer:
    """The zip format: `NAME/data.pkl`, `NAME/data/KEY` for each storage, and notes.

    Attributes:
        content: the objects of the file, with `Tensor`s.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        file.seek(max(size - _ZIP_END, 0))
        if not file.read(4) == b"PK\x05\x06":
            raise ValueError("its end is missing, or something follows it")
        self._zip = zipfile.ZipFile(file)
        self._members = _checked_members(self._zip, size)
        self._storages: dict[str, Storage] = {}
        if "byteorder" in self._members and self._read("byteorder") != b"little":
            raise RefusedError("was written on a big-endian machine; convert it there")
        if self._members["data.pkl"].file_size > _LARGEST_PICKLE:
            raise RefusedError("holds more objects than any file of weights")
        stream = io.BytesIO(self._read("data.pkl"))
        self.content = read_pickle(stream, BUILDERS, CONSTANTS, self._storage)
        if stream.read(1):
            raise ValueError("something follows its objects")
        self._unread = set(self._members) - {"data.pkl", "byteorder"}

    def bytes_of(self, storage: Storage) -> np.ndarray:
        """Read a storage, whole; `zipfile` compares the checksum."""
        name = f"data/{storage.key}"
        memory = np.empty(storage.nbytes, np.uint8)
        filled = 0
        for chunk in self._chunks(name):
            memory[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        if filled != len(memory):
            raise ValueError(f"{name} ends too early")
        self._unread.discard(name)
        return memory

    def check_rest(self) -> None:
        """Compare the checksums of all that was not read."""
        for name in sorted(self._unread):
            for _ in self._chunks(name):
                pass

    def _storage(self, identity: tuple[Any, ...]) -> Storage:
        storage = _declared_once(storage_of(identity), self._storages)
        member = self._members.get(f"data/{storage.key}")
        if member is None or member.file_size != storage.nbytes:
            raise ValueError(f"storage {quoted(storage.key)} is missing or of another length")
        return storage

    def _read(self, name: str) -> bytes:
        return b"".join(self._chunks(name))

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self._zip.open(self._members[name]) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk


def _checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by their names within the one directory that holds them all."""
    names = [info.filename.partition("/")[2] for info in archive.infolist()]
    if "data.pkl" not in names:
        raise RefusedError("is a zip archive, but not one that PyTorch writes: no data.pkl")
    if "constants.pkl" in names:
        raise RefusedError("is a TorchScript program; save the state_dict() of the model")
    members: dict[str, zipfile.ZipInfo] = {}
    roots = set()
    total = 0
    for info in archive.infolist():
        root, _, name = info.filename.partition("/")
        roots.add(root)
        # Nothing is written anywhere; but such names are no accident.
        parts = (root, *name.split("/"))
        if not {"", ".", ".."}.isdisjoint(parts) or any(c in info.filename for c in "\\\0"):
            raise RefusedError(f"has a zip member with the name {quoted(info.filename)}")
        if name in members:
            raise ValueError(f"the zip member {quoted(name)} occurs twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise RefusedError(f"has a compressed zip member, {quoted(name)}, as PyTorch has not")
        total += info.file_size
        members[name] = info
    if min(info.header_offset for info in members.values()) > 0:
        raise ValueError("something precedes its zip members")
    if total > size:
        raise ValueError("its zip members are longer than the file")
    if len(roots) > 1:
        raise RefusedError("is a zip archive of several directories, as PyTorch does not write")
    return members


class Stream:
    """The format before 1.6: four small pickles around a large one, then the storages.

    Attributes:
        content: as of `ZipContainer`.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        head = io.BytesIO(file.read(_LARGEST_PICKLE))
        self._storages: dict[str, Storage] = {}
        if read_pickle(head, {}) != _STREAM_MAGIC:
            raise ValueError("it does not begin as files of PyTorch do")
        if (version := read_pickle(head, {})) != _STREAM_VERSION:
            raise ValueError(f"it has the version {quoted(version)}")
        system = read_pickle(head, {})
        if type(system) is not dict or system.get("little_endian") is not True:
            raise ValueError("it does not say that it is little-endian")
        self.content = read_pickle(head, BUILDERS, CONSTANTS, self._storage)
        keys = read_pickle(head, {})
        if type(keys) is not list or any(type(key) is not str for key in keys):
            raise ValueError("its list of storages is malformed")
        if len(keys) != len(set(keys)) or set(keys) != set(self._storages):
            raise ValueError("its list of storages is not that of its tensors")
        self._starts = self._locate(keys, head.tell(), size)

    def bytes_of(self, storage: Storage) -> np.ndarray:
        """Read a storage, whole."""
        self._file.seek(self._starts[storage.key])
        memory = np.fromfile(self._file, np.uint8, storage.nbytes)
        if len(memory) != storage.nbytes:
            raise ValueError("it was shortened while it was read")
        return memory

    def check_rest(self) -> None:
        """Nothing: there are no checksums."""

    def _storage(self, identity: tuple[Any, ...]) -> Storage:
        return _declared_once(storage_of(identity), self._storages)

    def _locate(self, keys: list[str], position: int, size: int) -> dict[str, int]:
        """Find where each storage begins; its length stands before it."""
        starts = {}
        for key in keys:
            self._file.seek(position)
            (length,) = struct.unpack("<q", self._file.read(8))
            if length != self._storages[key].size:
                raise ValueError(f"storage {quoted(key)} is of another length")
            starts[key] = position + 8
            position += 8 + self._storages[key].nbytes
        if position != size:
            raise ValueError(f"it has {size} bytes where its storages end at {position}")
        return starts


def _declared_once(storage: Storage, storages: dict[str, Storage]) -> Storage:
    """Note a storage; each mention of it must be of the same type and size."""
    known = storages.setdefault(storage.key, storage)
    if (known.dtype, known.size) != (storage.dtype, storage.size):
        raise ValueError(f"storage {quoted(storage.key)} is described in two ways")
    return storage
