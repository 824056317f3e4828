"""Reading `.safetensors`: a JSON header and raw bytes, so nothing in it can be executed.

The library checks the header: its length, the data types, that shapes fit the bytes without
overflow, and that the tensors cover the rest of the file without gap or overlap. It does not check
that no name occurs twice (the last would win) nor that numpy can hold the shapes; here they are.
The format has no checksum: altered values can be found only by the SHA-256 of the whole file.
"""

import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from deit_jax.messages import in_short, quoted

SAFETENSORS_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
# Numpy's own limits: arrays have at most 64 dimensions, and sizes are signed 64-bit numbers.
_MOST_DIMENSIONS = 64
_MOST_ELEMENTS = 2**40


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all tensors of a file and the texts of its header.

    Returns:
        The arrays by name, bit for bit those in the file, and `__metadata__`.

    Raises:
        ValueError: the file is damaged, or holds a data type that numpy does not have.
        OSError: it cannot be read.
    """
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {in_short(error)}.") from error
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = _parse_header(path, file.read(length))
        metadata = entries.pop("__metadata__", None) or {}
        tensors = {}
        for name, entry in entries.items():
            dtype, shape = _type_and_shape(path, name, entry)
            file.seek(8 + length + entry["data_offsets"][0])
            array = np.fromfile(file, dtype=dtype, count=math.prod(shape))
            if array.size != math.prod(shape):
                raise ValueError(f"{path} was shortened while it was read.")
            check_booleans(array, f"{quoted(name)} of {path}")
            tensors[name] = array.reshape(shape)
    return tensors, metadata


def check_booleans(array: np.ndarray, where: str) -> None:
    """Refuse bytes that numpy would take for neither True nor False.

    Raises:
        ValueError: a byte of an array of booleans is neither 0 nor 1.
    """
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise ValueError(f"{where} is damaged: not all of its bytes are booleans.")


def _parse_header(path: Path, header: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            raise ValueError(f"{path} is damaged: its header holds a name twice.")
        return entries

    return json.loads(header, object_pairs_hook=unique)


def _type_and_shape(
    path: Path, name: str, entry: dict[str, Any]
) -> tuple[np.dtype, tuple[int, ...]]:
    if entry["dtype"] not in SAFETENSORS_DTYPES:
        raise ValueError(
            f"{quoted(name)} of {path} is stored as {quoted(entry['dtype'])}, which numpy does not "
            "have; convert it to one of " + ", ".join(SAFETENSORS_DTYPES) + "."
        )
    shape = tuple(entry["shape"])
    # Empty arrays too: numpy multiplies the other dimensions all the same.
    if len(shape) > _MOST_DIMENSIONS or math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS:
        raise ValueError(f"{quoted(name)} of {path} has an impossible shape: {list(shape)[:8]}.")
    return SAFETENSORS_DTYPES[entry["dtype"]], shape
