"""Reading PyTorch's `.pth` and `.pt` files without PyTorch and without executing anything.

Such a file is a pickle and raw bytes. The pickle is read by `inert_pickle`, which has no functions
to call. The bytes are found in one of two containers:

- a zip archive (since PyTorch 1.6): every member is checked against its CRC-32, also those that are
  not asked for. Members are looked up by name and never written to disk, none may be compressed
  (PyTorch does not, and so nothing can unpack to more than the file), together they may not be
  longer than the file, and each storage must be as long as the pickle says;
- a stream (before; many files of torchvision): has no checksum. The lengths are checked, also that
  nothing follows the last byte. Values that were altered can be found only by a known SHA-256.

Memory: the storages of the selected tensors are read once; the tensors are views of them.
"""

import contextlib
import errno
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deit_jax.inert_pickle import RefusedError
from deit_jax.messages import in_short
from deit_jax.weights.formats.safetensors import check_booleans
from deit_jax.weights.formats.torch_containers import ZIP_MAGIC, Stream, ZipContainer
from deit_jax.weights.formats.torch_objects import Tensor

_DEEPEST = 64
# Tensors may overlap or repeat elements (stride 0); copies of all of them must remain possible.
_MOST_EXPANSION = 4
_SMALL = 2**24

# All that pickletools and zipfile raise for malformed bytes, beside those of this package.
_DAMAGE = (
    ValueError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
)


def is_tensor(value: Any) -> bool:
    """Return whether something that `select` is given is a tensor which can be read."""
    return type(value) is Tensor


def read_pth(path: Path, select: Callable[[Any], Any] = lambda content: content) -> Any:
    """Read a file that `torch.save` has written.

    Args:
        path: of the file.
        select: is given the content with tensors that are not read yet (see `is_tensor`), and
            returns the part of it that is wanted.

    Returns:
        That part: dicts, lists, tuples, numbers, texts, numpy arrays (bit for bit the tensors, not
        writable, in places sharing memory), and `InertObject`s such as of argparse.Namespace.

    Raises:
        ValueError: the file is damaged, or holds anything else; the message names it.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        magic = file.read(len(ZIP_MAGIC))
        file.seek(0)
        with _named(path):
            container = (ZipContainer if magic == ZIP_MAGIC else Stream)(file, size)
        # Not inside: the messages of `select` name the file themselves.
        selected = select(container.content)
        with _named(path):
            result = _Tensors(container, _SMALL + _MOST_EXPANSION * size).read(selected)
            container.check_rest()
    return result


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn whatever is raised for malformed content into one sentence that names the file."""
    try:
        yield
    except RefusedError as error:
        raise ValueError(f"{path} {error}.") from error
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {in_short(error)}.") from error
    except OSError as error:
        # Also for an offset in a zip archive that lies before its beginning.
        if error.errno == errno.EINVAL:
            raise ValueError(f"{path} is damaged: it refers to a place outside of it.") from error
        raise OSError(f"{path} cannot be read: {error.strerror or error}.") from error


class _Tensors:
    """Puts arrays in the places of tensors, reading each storage once."""

    def __init__(self, container: ZipContainer | Stream, room: int) -> None:
        self._container, self._room = container, room
        self._memory: dict[str, np.ndarray] = {}
        # By identity, for what occurs in several places; cycles are found by depth.
        self._done: dict[int, Any] = {}

    def read(self, tree: Any, depth: int = 0) -> Any:
        """Return a tree with arrays."""
        if not isinstance(tree, dict | list | tuple | Tensor):
            return tree
        if id(tree) not in self._done:
            if depth > _DEEPEST:
                raise RefusedError(f"has objects nested more than {_DEEPEST} deep, or in a circle")
            self._done[id(tree)] = self._read(tree, depth + 1)
        return self._done[id(tree)]

    def _read(self, tree: Any, depth: int) -> Any:
        if isinstance(tree, dict):
            return type(tree)((key, self.read(value, depth)) for key, value in tree.items())
        if isinstance(tree, list | tuple):
            return type(tree)(self.read(value, depth) for value in tree)
        self._room -= tree.nbytes
        if self._room < 0:
            raise RefusedError("has tensors that repeat their elements beyond all measure")
        if tree.nbytes and tree.storage.key not in self._memory:
            self._memory[tree.storage.key] = self._container.bytes_of(tree.storage)
        array = tree.read_from(self._memory.get(tree.storage.key, np.empty(0, np.uint8)))
        check_booleans(array, "a tensor")
        return array
