"""Image files inside a tar or zip, read where they lie: nothing is unpacked to disk.

Names inside an archive are never used as paths. What is no plain file (links, devices) and what
has a name that would lead out of a directory is left out, and one warning says so.
"""

import gzip
import os
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from deit_jax.data.formats.packed_names import PackedNames
from deit_jax.data.identity import combine, of_numbers
from deit_jax.data.images.file import MOST_BYTES
from deit_jax.data.images.names import (
    DROPPING,
    OTHER_ENDING,
    LeftOut,
    has_image_ending,
    has_other_ending,
    is_left_behind,
)

ARCHIVES: Final = (".tar", ".zip")
_IRREGULAR: Final = "links, devices, encrypted members, names that lead out of the archive"
_COMPRESSED: Final = (".tgz", ".gz", ".bz2", ".xz", ".zst")
# What the standard library raises over damaged files; OverflowError: sizes beyond 63 bits;
# RuntimeError: a member that is encrypted after all.
_UNREADABLE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
)
# zipfile counts its readers, which several threads must not do at once.
_READING: Final = threading.Lock()


class _Member(NamedTuple):
    """Where a file lies: for a tar the position of its bytes, for a zip the number in its index."""

    name: str
    position: int
    size: int
    # A zip's CRC-32, which a tar has not.
    crc: int = 0
    # No link, device or such.
    plain: bool = True


class Archive:
    """The images of a tar or zip, in the order of the index.

    A tar inside a tar counts as a folder of its name, as in ImageNet's file of training images.
    Opened by each process for itself; only the index is pickled. Of a zip, zipfile holds another in
    each process that reads: 0.6 kB for each file in it.

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
            where = [(m.position, m.size, m.crc) for m in members.values()]
            self._where = np.array(where, np.int64).reshape(-1, 3)
        except _UNREADABLE as error:
            raise ValueError(_why_unreadable(self.path, error)) from error
        left_out.say(self.path)
        self.names = PackedNames(members)
        self._file: int | None = None
        self._zip: zipfile.ZipFile | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def identity(self) -> str:
        """Of names, sizes and, of a zip, the checksums of the images."""
        return combine([self.names.digest(), of_numbers(self._where[:, 1], self._where[:, 2])])

    def name(self, index: int) -> str:
        """Return what errors call a member: the archive's path and the name inside it."""
        return os.path.join(self.path, self.names[index])

    def read(self, index: int) -> bytes:
        """Return the bytes of a member.

        Raises:
            ValueError: if it is damaged or larger than any image.
        """
        position, size, _ = self._where[index].tolist()
        if not 0 <= size <= MOST_BYTES:
            raise ValueError(f"it claims {size:,} bytes, more than any image has")
        if self._is_zip:
            return self._unzip(position)
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        data = os.pread(self._file, size, position)
        if len(data) < size:
            raise ValueError("the archive does not reach to where its index says")
        return data

    def _unzip(self, number: int) -> bytes:
        """Read a member, whose checksum is compared."""
        with _READING:
            try:
                if self._zip is None:
                    self._zip = zipfile.ZipFile(self.path)
                return self._zip.read(self._zip.infolist()[number])
            except _UNREADABLE as error:
                raise ValueError(f"it cannot be read from the archive ({error})") from error

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None, "_zip": None}


def is_archive(path: Path) -> bool:
    """Return whether a path looks like one that `Archive` reads."""
    return path.is_file() and path.suffix.lower() in ARCHIVES


def read_packed(path: Path, names: Container[str]) -> dict[str, bytes]:
    """Read files out of a tar, which may be compressed, by their names without folders.

    Raises:
        ValueError: if it is damaged or no tar.
    """
    contents = {}
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file) as tar:
            for info in tar:
                name = posixpath.basename(info.name)
                if name in names and info.size <= MOST_BYTES and (member := tar.extractfile(info)):
                    contents[name] = member.read()
            # tarfile takes a damaged header for the end; the checksum of all stands behind it.
            assert tar.fileobj is not None
            while tar.fileobj.read(1 << 20):
                pass
    except _UNREADABLE as error:
        raise ValueError(f"{path} is a damaged or incomplete archive: {error}.") from error
    return contents


def _is_wanted(member: _Member, left_out: LeftOut) -> bool:
    """Return whether a member is an image with a harmless name; what looks like one is noted."""
    parts = member.name.split("/")
    if not member.plain or ".." in parts or member.name.startswith("/") or "\0" in member.name:
        left_out.add(_IRREGULAR, member.name)
        return False
    is_dropping = any(map(is_left_behind, parts))
    if not has_image_ending(member.name):
        if has_other_ending(member.name) and not is_dropping:
            left_out.add(OTHER_ENDING, member.name)
        return False
    if is_dropping:
        left_out.add(DROPPING, member.name)
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
            yield _Member(name, info.offset_data, info.size, plain=plain)
        # tarfile takes a damaged header for the end, which is a block of zeros.
        file.seek(tar.offset)
        if tar.offset < stop and file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {tar.offset:,} is damaged")


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar") and not any(map(is_left_behind, name.split("/")))


def _zip_members(path: str) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for number, info in enumerate(archive.infolist()):
            if info.is_dir():
                continue
            kind = (info.external_attr >> 16) & 0o170000
            plain = kind in (0, 0o100000) and not info.flag_bits & 1
            name = info.filename.removeprefix("./")
            yield _Member(name, number, info.file_size, info.CRC, plain)


def _why_unreadable(path: str, error: Exception) -> str:
    if path.lower().endswith(_COMPRESSED):
        return (
            f"{path} is compressed as a whole, so single images cannot be found in it: decompress "
            "it first (gunzip, bunzip2, unxz, unzstd); images hardly grow."
        )
    return f"{path} is a damaged or incomplete archive: {error}."
