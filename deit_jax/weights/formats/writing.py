"""Writing weight files: whole or not at all, and never over another file unless told to."""

import importlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from deit_jax.files import require_parent, write_json, written_whole
from deit_jax.weights.formats.any import PREPROCESSORS, SIDECAR_SHA256, sha256_of, sidecar
from deit_jax.weights.formats.safetensors import SAFETENSORS_DTYPES
from deit_jax.weights.formats.shards import WEIGHT_NAMES


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
    with written_whole(Path(path), overwrite=overwrite) as partial:
        try:
            save_file(storable, partial, metadata=texts)
        except SafetensorError as error:
            raise _system_error(error) from error
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
    with written_whole(Path(path), overwrite=overwrite) as partial, open(partial, "wb") as file:
        stream = _Stream(file)
        try:
            torch.save(converted, stream)
        except RuntimeError as error:
            raise stream.error or error from error


def write_bare_pth(
    path: Path, tensors: dict[str, np.ndarray], texts: dict[str, str], overwrite: bool
) -> list[Path]:
    """Write tensors alone, as `load_state_dict` takes them, and the texts into a file beside.

    Returns:
        Both files.

    Raises:
        FileExistsError, FileNotFoundError, ModuleNotFoundError: as `write_pth`, of either file.
    """
    side = sidecar(path)
    if side.exists() and not overwrite:
        raise FileExistsError(
            f"{side} exists already; choose another name or allow overwriting (--overwrite)."
        )
    # Texts name the file that they are of by its hash, so old ones may lie there until then.
    write_pth(path, tensors, overwrite)
    write_json(side, texts | {SIDECAR_SHA256: sha256_of(path)})
    return [path, side]


def write_directory(
    path: Path,
    tensors: dict[str, np.ndarray],
    metadata: dict[str, str],
    configs: Mapping[str, dict[str, Any]],
    overwrite: bool,
) -> list[Path]:
    """Write a directory as Hugging Face repositories have them.

    Args:
        path: of the directory, which is made; the one it is in must exist.
        tensors: arrays by name.
        metadata: texts for the header of their file.
        configs: JSON files by name, that of the model first.
        overwrite: whether files of weights and descriptions may be replaced.

    Returns:
        The files written.

    Raises:
        FileExistsError: there is one already, and `overwrite` is off; or the path is a file.
        FileNotFoundError, ValueError: as `write_safetensors`.
    """
    require_parent(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose another name for the directory.")
    # Descriptions that are not written anew would be taken for those of the new weights.
    descriptions = [path / name for name in ("config.json", *PREPROCESSORS)]
    there = [file for file in (path / WEIGHT_NAMES[0], *descriptions) if file.exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{there[0]} exists already; choose another directory or allow overwriting "
            "(--overwrite)."
        )
    # Before anything that lies there goes.
    storable = {name: _storable(name, array) for name, array in tensors.items()}
    path.mkdir(exist_ok=True)
    # While there is no configuration, nobody takes new weights for those of an old one.
    for file in descriptions:
        file.unlink(missing_ok=True)
    write_safetensors(path / WEIGHT_NAMES[0], storable, metadata, overwrite)
    # The one that makes it a model comes last.
    for name in reversed(list(configs)):
        write_json(path / name, configs[name], overwrite=False)
    return [path / name for name in (WEIGHT_NAMES[0], *configs)]


class _Stream:
    """A file that remembers its error, of which PyTorch makes one about positions."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it."""
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Hand over to the system what was written."""
        self._file.flush()


def _system_error(error: Exception) -> Exception:
    """Return the error of the operating system that the safetensors library speaks of."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    if name == "__metadata__":
        raise ValueError("No tensor can be named '__metadata__' in a safetensors file.")
    array = np.asarray(array)
    if array.dtype.newbyteorder("=") not in SAFETENSORS_DTYPES.values():
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
