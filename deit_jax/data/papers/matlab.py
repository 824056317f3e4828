"""The MATLAB files beside Flowers, Cars and ImageNet, through SciPy: arrays and structures only."""

from pathlib import Path
from typing import IO, Any

import numpy as np


def read_matlab(path: Path, file: IO[bytes] | None = None) -> dict[str, Any]:
    """Read a file of MATLAB 5 to 7; structures come as dicts, cells as arrays.

    Args:
        path: of the file, or what errors call it.
        file: its content, if that lies elsewhere.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
        ModuleNotFoundError: if SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path.name} is a MATLAB file, which SciPy reads: pip install 'deit_jax[datasets]'."
        ) from error
    if file is None and not path.is_file():
        raise FileNotFoundError(f"No file {str(path)!r}, which the data set consists of.")
    try:
        return loadmat(file or path, simplify_cells=True)
    # SciPy has no one exception for damaged files: TypeError, KeyError, zlib.error and others.
    except Exception as error:
        raise ValueError(f"{path} is no MATLAB file that can be read: {error}.") from error


def table(
    content: dict[str, Any], name: str, path: Path, columns: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return the rows of a structure array.

    Raises:
        ValueError: if there is none of that name with these columns.
    """
    rows = _named(content, name, path)
    # SciPy gives a single row as what it consists of.
    rows = [rows] if isinstance(rows, dict) else list(rows)
    if not all(isinstance(row, dict) and row.keys() >= set(columns) for row in rows):
        raise ValueError(f"{path}: {name!r} is no table of {', '.join(columns)}.")
    return rows


def numbers(content: dict[str, Any], name: str, path: Path) -> np.ndarray:
    """Return an array of integers.

    Raises:
        ValueError: if there is none of that name.
    """
    return np.atleast_1d(_named(content, name, path)).astype(np.int64)


def texts(content: dict[str, Any], name: str, path: Path) -> list[str]:
    """Return a cell array of texts.

    Raises:
        ValueError: if there is none of that name.
    """
    return [str(text) for text in np.atleast_1d(_named(content, name, path))]


def _named(content: dict[str, Any], name: str, path: Path) -> Any:
    if name not in content:
        raise ValueError(f"{path} has no {name!r}: is it the file of that data set?")
    return content[name]
