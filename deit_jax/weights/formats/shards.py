"""Directories of weights, also those whose weights are cut into several files.

Beside the shards lies an index, a JSON object that names for each tensor the file it is in.
"""

from pathlib import Path
from typing import Any

from deit_jax.files import read_json
from deit_jax.messages import quoted

# What a directory of a Hugging Face repository may hold, the best first.
WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
INDEX_NAMES = tuple(f"{name}.index.json" for name in WEIGHT_NAMES)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_INDEX_SUFFIX = ".index.json"
_LARGEST_INDEX = 2**26


def find_weights(path: Path) -> Path:
    """Return the file of weights, or the index of several, that a path names.

    Raises:
        FileNotFoundError: there is no such file, or none in the directory.
        ValueError: it is neither a file nor a directory.
    """
    if path.is_dir():
        for name in (*WEIGHT_NAMES, *INDEX_NAMES):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(
            f"There is no {' or '.join(WEIGHT_NAMES)} in {path}; name the file of weights itself."
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a directory.")
    return path


def is_index(path: Path) -> bool:
    """Return whether it is the index of shards."""
    return path.name.endswith(_INDEX_SUFFIX)


def read_index(path: Path) -> dict[str, set[str]]:
    """Return the names of the tensors that each shard must hold, by the shard's file name.

    Raises:
        ValueError: the index is damaged, or names a file that is not directly beside it.
    """
    content = read_json(path, _LARGEST_INDEX)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{path} is no index of weights: it has no 'weight_map' of tensors.")
    shards: dict[str, set[str]] = {}
    for tensor, file in places.items():
        if not _is_plain(file):
            raise ValueError(
                f"{path} places {quoted(tensor)} in {quoted(file)}, which is no file of weights "
                "beside it."
            )
        shards.setdefault(file, set()).add(tensor)
    return shards


def files_of(path: Path) -> tuple[str, ...]:
    """Return the file names that hold the tensors: that of the path, or those in an index."""
    return tuple(read_index(path)) if is_index(path) else (path.name,)


def _is_plain(file: Any) -> bool:
    """Return whether it is a bare file name, so that nothing outside the directory is read."""
    return (
        isinstance(file, str)
        and not file.startswith(".")
        and not set(file) & set("/\\\0:")
        and file.endswith(WEIGHT_SUFFIXES)
    )


def is_complete(directory: Path) -> bool:
    """Return whether a directory holds weights, and of cut ones all shards."""
    try:
        path = find_weights(directory)
        return all((directory / name).is_file() for name in files_of(path))
    except (OSError, ValueError):
        return False
