"""Reading `.safetensors`: a JSON header and raw bytes, so nothing in it can be executed.

The library takes the file apart and checks it: the length of the header, the data types, that
shapes fit the bytes without overflow, and that the tensors cover the rest of the file without gap
or overlap. Types that numpy has not come from ml_dtypes, as in JAX. The format has no checksum:
altered values can be found only by the SHA-256 of the whole file.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from deit_jax.messages import in_short, quoted

_TYPES: dict[str, Any] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16,
    "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64, "F16": np.float16,
    "BF16": ml_dtypes.bfloat16, "F32": np.float32, "F64": np.float64, "C64": np.complex64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip
SAFETENSORS_DTYPES = {name: np.dtype(kind) for name, kind in _TYPES.items()}


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all tensors of a file and the texts of its header.

    Memory: for a moment twice the file.

    Returns:
        The arrays by name, bit for bit those in the file, and `__metadata__`.

    Raises:
        ValueError: the file is damaged, or holds a data type that numpy does not have.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        stored = safetensors.deserialize(data)
        # The library takes the last of two tensors of one name, and says nothing.
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        entries = json.loads(header, object_pairs_hook=_unique)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {in_short(error)}.") from error
    # The library's order is another one at every call.
    tensors = {name: _array(path, name, entry) for name, entry in sorted(stored)}
    return tensors, entries.get("__metadata__") or {}


def check_booleans(array: np.ndarray, where: str) -> None:
    """Refuse bytes that numpy would take for neither True nor False.

    Raises:
        ValueError: a byte of an array of booleans is neither 0 nor 1.
    """
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise ValueError(f"{where} is damaged: not all of its bytes are booleans.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("its header holds a name twice")
    return entries


def _array(path: Path, name: str, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in SAFETENSORS_DTYPES:
        raise ValueError(
            f"{quoted(name)} of {path} is stored as {quoted(entry['dtype'])}, which numpy does not "
            "have; convert it to one of " + ", ".join(SAFETENSORS_DTYPES) + "."
        )
    array = np.frombuffer(entry["data"], SAFETENSORS_DTYPES[entry["dtype"]])
    check_booleans(array, f"{quoted(name)} of {path}")
    try:
        return array.reshape(entry["shape"])
    # Of more dimensions than numpy has, or empty beside numbers beyond its own.
    except (ValueError, OverflowError) as error:
        shape = list(entry["shape"])[:8]
        raise ValueError(f"{quoted(name)} of {path} has an impossible shape: {shape}.") from error
