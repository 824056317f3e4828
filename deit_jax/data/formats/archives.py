"""Image files inside a tar or zip, read at their positions: nothing is unpacked to disk.

Names inside an archive are never used as paths. What is no plain file (links, devices) and what
has a name that would lead out of a directory is left out, and one warning says so.
"""

import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from deit_jax.data.formats.packed_names import PackedNames
from deit_jax.data.identity import combine, of_numbers
from deit_jax.data.images.file import MOST_BYTES
from deit_jax.data.images.names import (
    OTHER_ENDING,
    LeftOut,
    has_image_ending,
    has_other_ending,
    is_left_behind,
)

ARCHIVES: Final = (".tar", ".zip")
_IRREGULAR: Final = "links, devices, encrypted members, names that lead out of the archive"
_DROPPING: Final = "what systems leave behind"
_COMPRESSED: Final = (".tgz", ".gz", ".bz2", ".xz", ".zst")
# What the standard library raises over damaged files; OverflowError: sizes beyond 63 bits.
_UNREADABLE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    struct.error,
)
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")


class _Member(NamedTuple):
    """Where a file lies: for a tar the position of its bytes, for a zip that of its header."""

    name: str
    position: int
    stored: int
    size: int
    # A zip's method (0: stored, 8: deflate) and CRC-32; a tar has neither.
    method: int = 0
    crc: int = 0


class Archive:
    """The images of a tar or zip, in the order of the index.

    A tar inside a tar counts as a folder of its name, as in ImageNet's file of training images.
    Opened by each process for itself; only the index is pickled.

    Args:
        path: the archive; a tar must not be compressed as a whole.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, compressed as a whole or no archive.
    """

    def __init__(self, path: str | Path):
        self.path = str(Path(path).expanduser())
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"No archive {self.path!r}.")
        with open(self.path, "rb") as file:
            self._is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
        left_out = LeftOut()
        try:
            every = _zip_members(self.path) if self._is_zip else _tar_members(self.path)
            # As when unpacking, the later of two files with one name counts.
            members = {posixpath.normpath(m.name): m for m in every if _is_wanted(m, left_out)}
            where = [(m.position, m.stored, m.size, m.method, m.crc) for m in members.values()]
            self._where = np.array(where, np.int64).reshape(-1, 5)
        except _UNREADABLE as error:
            raise ValueError(_why_unreadable(self.path, error)) from error
        left_out.say(self.path)
        self.names = PackedNames(members)
        self._file: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def identity(self) -> str:
        """Of names, sizes and, of a zip, the checksums of the images."""
        return combine([self.names.digest(), of_numbers(self._where[:, 2], self._where[:, 4])])

    def name(self, index: int) -> str:
        """Return what errors call a member: the archive's path and the name inside it."""
        return os.path.join(self.path, self.names[index])

    def read(self, index: int) -> bytes:
        """Return the bytes of a member.

        Raises:
            ValueError: if it is damaged or larger than any image.
        """
        position, stored, size, method, crc = self._where[index].tolist()
        if not 0 <= min(stored, size) <= max(stored, size) <= MOST_BYTES:
            raise ValueError(f"it claims {max(stored, size):,} bytes, more than any image has")
        if not self._is_zip:
            return self._bytes(position, size)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(
            self._bytes(position, _LOCAL_HEADER.size)
        )
        if signature != b"PK\3\4":
            raise ValueError("the archive has no file where its index says")
        data = self._bytes(position + _LOCAL_HEADER.size + name_length + extra_length, stored)
        return _inflated(data, size, method, crc)

    def _bytes(self, position: int, count: int) -> bytes:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        # A damaged index can point to before the beginning.
        data = os.pread(self._file, count, position) if position >= 0 else b""
        if len(data) < count:
            raise ValueError("the archive does not reach to where its index says")
        return data

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}


def is_archive(path: Path) -> bool:
    """Return whether a path looks like one that `Archive` reads."""
    return path.is_file() and path.suffix.lower() in ARCHIVES


def _is_wanted(member: _Member, left_out: LeftOut) -> bool:
    """Return whether a member is an image with a harmless name; what looks like one is noted."""
    # A method below 0 marks what is no plain file; see _tar_members and _zip_members.
    parts = member.name.split("/")
    if member.method < 0 or ".." in parts or member.name.startswith("/") or "\0" in member.name:
        left_out.add(_IRREGULAR, member.name)
        return False
    is_dropping = any(map(is_left_behind, parts))
    if not has_image_ending(member.name):
        if has_other_ending(member.name) and not is_dropping:
            left_out.add(OTHER_ENDING, member.name)
        return False
    if is_dropping:
        left_out.add(_DROPPING, member.name)
        return False
    return True


def _tar_members(path: str) -> Iterator[_Member]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        yield from _tar_from(file, 0, size, "")


def _tar_from(file: BinaryIO, start: int, stop: int, folder: str) -> Iterator[_Member]:
    """Members of the tar that begins at a position; those of tars within it as in folders."""
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            # Otherwise all 1.3 million entries would be kept.
            tar.members = []  # type: ignore[attr-defined]
            if info.offset >= stop:
                return
            name = folder + info.name.removeprefix("./")
            end = info.offset_data + (info.size if info.isreg() else 0)
            if not info.offset_data <= end <= stop:
                raise tarfile.ReadError(f"{name} lies beyond its end")
            if info.isdir():
                continue
            if info.isreg() and not folder and _is_tar(name):
                yield from _tar_from(file, info.offset_data, end, name[: -len(".tar")] + "/")
                continue
            plain = info.isreg() and not info.issparse()
            yield _Member(name, info.offset_data, info.size, info.size, 0 if plain else -1)
        # tarfile takes a damaged header for the end, which is a block of zeros.
        file.seek(tar.offset)
        if tar.offset < stop and file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {tar.offset:,} is damaged")


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar") and not any(map(is_left_behind, name.split("/")))


def _zip_members(path: str) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind = (info.external_attr >> 16) & 0o170000
            plain = kind in (0, 0o100000) and not info.flag_bits & 1
            yield _Member(
                info.filename.removeprefix("./"),
                info.header_offset,
                info.compress_size,
                info.file_size,
                info.compress_type if plain else -1,
                info.CRC,
            )


def _inflated(data: bytes, size: int, method: int, crc: int) -> bytes:
    if method == zipfile.ZIP_DEFLATED:
        try:
            # One byte more than claimed shows a false claim without unpacking all of it.
            data = zlib.decompressobj(-15).decompress(data, size + 1)
        except zlib.error as error:
            raise ValueError(f"it cannot be decompressed ({error})") from error
    elif method != zipfile.ZIP_STORED:
        raise ValueError(f"it is compressed in a way ({method}) other than deflate")
    if len(data) != size or zlib.crc32(data) != crc:
        raise ValueError("its bytes do not have the checksum that the archive states")
    return data


def _why_unreadable(path: str, error: Exception) -> str:
    if path.lower().endswith(_COMPRESSED):
        return (
            f"{path} is compressed as a whole, so single images cannot be found in it: decompress "
            "it first (gunzip, bunzip2, unxz, unzstd); images hardly grow."
        )
    return f"{path} is a damaged or incomplete archive: {error}."
