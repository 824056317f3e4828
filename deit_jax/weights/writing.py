"""Writing weight files: whole or not at all, and never over another file unless told to.

A file is written beside its place under a name that begins with a dot and ends in `.partial`,
forced to the disk, and only then given its name. So whatever happens, under the final name there is
the old file, the new one, or none. After a crash a `.partial` file may remain; nothing reads it.
"""

import contextlib
import errno
import importlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from deit_jax.weights.safetensors_reader import DTYPES


def write_safetensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write arrays to a `.safetensors` file. Equal arrays and texts give equal bytes.

    Args:
        path: of the file; its directory must exist.
        tensors: arrays by name, of any memory layout.
        metadata: texts for the header.
        overwrite: whether a file of that name may be replaced.

    Raises:
        FileExistsError: there is one, and `overwrite` is off.
        FileNotFoundError: the directory does not exist.
        ValueError: an array is of a type that the format does not have, or a name is reserved.
    """
    storable = {name: _storable(name, array) for name, array in tensors.items()}
    texts = {"format": "pt", **(metadata or {})}
    if wrong := [key for key, text in texts.items() if not isinstance(text, str)]:
        raise ValueError(f"The metadata {wrong[0]!r} is no text; a safetensors header holds text.")
    with _placed(Path(path), overwrite) as partial:
        save_file(storable, partial, metadata=texts)
        _sort_header(partial)


def write_pth(path: str | Path, content: Any, overwrite: bool = False) -> None:
    """Write nested dicts, lists and numbers with arrays in them as PyTorch's `torch.save` does.

    Args:
        path: of the file; its directory must exist.
        content: what `torch.load` shall return; numpy arrays become tensors.
        overwrite: whether a file of that name may be replaced.

    Raises:
        FileExistsError: there is one, and `overwrite` is off.
        FileNotFoundError: the directory does not exist.
        ModuleNotFoundError: PyTorch is not installed.
        ValueError: an array is of a type that PyTorch does not have.
    """
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Writing {path} needs PyTorch: install it with `pip install 'deit_jax[torch]'`, or "
            "write a .safetensors file, which needs nothing more."
        ) from error
    converted = _to_torch(torch, content)
    # Given as a stream: from a path PyTorch would take the temporary name into the file.
    with _placed(Path(path), overwrite) as partial, open(partial, "wb") as stream:
        torch.save(converted, stream)


def write_json(path: str | Path, content: Mapping[str, Any], overwrite: bool = False) -> None:
    """Write a JSON file as it lies beside weights.

    Raises:
        FileExistsError: there is one, and `overwrite` is off.
        FileNotFoundError: the directory does not exist.
    """
    with _placed(Path(path), overwrite) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def _placed(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path to write to; on success that file gets its name, else it goes."""
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file to write to.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no directory {path.parent}.")
    if not overwrite:
        _refuse_existing(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode
        yield partial
        # The library makes a file of its own there, for the eyes of the owner only.
        partial.chmod(mode)
        _force_to_disk(partial)
        if overwrite:
            os.replace(partial, path)
        else:
            _rename_to_free_name(partial, path)
        _force_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already; choose another name or allow overwriting.")


def _rename_to_free_name(partial: Path, path: Path) -> None:
    """Rename without replacing what someone else has written there in the meantime."""
    try:
        os.link(partial, path)
    except FileExistsError:
        _refuse_existing(path)
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links has no way to do both in one.
        _refuse_existing(path)
        os.replace(partial, path)


def _force_to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a directory, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot do it for a directory.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    if name == "__metadata__":
        raise ValueError("No tensor can be named '__metadata__' in a safetensors file.")
    array = np.asarray(array)
    if array.dtype.newbyteorder("=") not in DTYPES.values():
        raise ValueError(f"{name} is {array.dtype}, which a safetensors file cannot hold.")
    # The library writes the memory as it lies: a transposed array would come back scrambled.
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def _sort_header(path: Path) -> None:
    """Put the header of a file in alphabetical order; the library's order of texts is random."""
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
        ordered = {name: dict(sorted(entries[name].items())) for name in sorted(entries)}
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            return
        file.seek(8)
        file.write(text.ljust(length))


def _to_torch(torch: Any, content: Any) -> Any:
    if isinstance(content, np.ndarray | np.generic):
        array = np.array(content, content.dtype.newbyteorder("="), order="C")
        if array.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        try:
            return torch.from_numpy(array)
        except TypeError as error:
            raise ValueError(f"PyTorch has no tensors of {array.dtype}.") from error
    if isinstance(content, Mapping):
        return {key: _to_torch(torch, value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_to_torch(torch, value) for value in content)
    return content
