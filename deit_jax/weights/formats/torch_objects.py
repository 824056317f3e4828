"""What the pickle of a `.pth` file may speak of: tensors over storages, and inert odds and ends.

Tensors are described here and not yet read. A description is checked when it is made: integers
that are not negative, and no element outside the storage.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from deit_jax.inert_pickle import Builders, InertObject, RefusedError, Symbol, put_items
from deit_jax.messages import quoted

_MOST_DIMENSIONS = 64  # of numpy

_STORAGES: dict[str, Any] = {
    "Bool": np.bool_, "Byte": np.uint8, "Char": np.int8, "Short": np.int16, "Int": np.int32,
    "Long": np.int64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16, "Float": np.float32,
    "Double": np.float64, "ComplexFloat": np.complex64, "ComplexDouble": np.complex128,
}  # fmt: skip
STORAGES = {f"torch.{name}Storage": np.dtype(kind) for name, kind in _STORAGES.items()}
# Of newer types the storage says only how many bytes it has.
UNTYPED = "torch.storage.UntypedStorage"
_NEWER_TYPES = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_DTYPES: dict[str, Any] = {
    "bool": np.bool_, "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32,
    "uint64": np.uint64, "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64,
    "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32,
    "float64": np.float64, "complex64": np.complex64, "complex128": np.complex128,
    **{name: getattr(ml_dtypes, name) for name in _NEWER_TYPES},
}  # fmt: skip
TORCH_DTYPES = {f"torch.{name}": np.dtype(kind) for name, kind in _DTYPES.items()}

CONSTANTS = frozenset({*STORAGES, *TORCH_DTYPES, UNTYPED})


@dataclass(frozen=True)
class Storage:
    """A run of bytes of the file, or a part of it.

    Attributes:
        key: its name in the file.
        dtype: of its elements; uint8 if it has no type of its own.
        size: of the whole run, elements.
        first, count: the part, elements.
    """

    key: str
    dtype: np.dtype
    size: int
    first: int
    count: int

    @property
    def nbytes(self) -> int:
        """Length of the whole run, bytes."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Tensor:
    """Where the elements of a tensor lie. Offset (of the first) and strides are in bytes."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Room that its elements take when each has its own, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_from(self, memory: np.ndarray) -> np.ndarray:
        """Return the tensor, given the bytes of its whole storage; a view of them if it can be."""
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        view = np.ndarray(self.shape, self.dtype, memory.data, self.offset, self.strides)
        view.flags.writeable = False
        return view if view.flags.c_contiguous else view.copy(order="C")


def storage_of(identity: Sequence[Any]) -> Storage:
    """Read a persistent id: ("storage", type, key, location, elements[, part]).

    Raises:
        ValueError: it is not of that form.
    """
    match identity:
        case ("storage", Symbol(name), str(key), str(), int(size)):
            part = None
        case ("storage", Symbol(name), str(key), str(), int(size), part):
            pass
        case _:
            raise ValueError("a reference to a storage is malformed")
    if name != UNTYPED and name not in STORAGES:
        raise ValueError(f"a storage has the type {quoted(name)}")
    match part:
        case None:
            first, count = 0, size
        case (_, int(first), int(count)):
            pass
        case _:
            raise ValueError("a part of a storage is malformed")
    if min(size, first, count) < 0 or first + count > size:
        raise ValueError(f"storage {quoted(key)} has an impossible size")
    return Storage(key, STORAGES.get(name, np.dtype(np.uint8)), size, first, count)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None = None
) -> Tensor:
    if type(storage) is not Storage:
        raise ValueError("a tensor has no storage")
    dtype = dtype or storage.dtype
    fits = type(shape) is tuple and type(strides) is tuple and len(shape) == len(strides)
    if not fits or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("the shape and the strides of a tensor do not fit")
    if any(type(number) is not int or number < 0 for number in (offset, *shape, *strides)):
        raise ValueError("a tensor has a shape, stride or offset that is no natural number")
    # Python's integers do not overflow; numpy's would, even for empty arrays.
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize >= 2**62:
        raise ValueError("a tensor is larger than any memory")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    bytes_there = storage.count * storage.dtype.itemsize
    if math.prod(shape) and (last + 1) * dtype.itemsize > bytes_there:
        raise ValueError("a tensor reaches beyond the end of its storage")
    start = storage.first * storage.dtype.itemsize + offset * dtype.itemsize
    return Tensor(storage, dtype, start, shape, tuple(step * dtype.itemsize for step in strides))


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, strides: Any, *others: Any, dtype: Any = None
) -> Tensor:
    """`others`: requires_grad, hooks, and flags that its numbers are to be negated or such."""
    if len(others) > 2 and others[2]:
        raise RefusedError("has a tensor with flags that only PyTorch can apply")
    return _tensor(storage, offset, shape, strides, dtype)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    *flags: Any,
) -> Tensor:
    if type(dtype) is not Symbol or dtype.name not in TORCH_DTYPES:
        raise ValueError("the type of a tensor is unknown")
    found = TORCH_DTYPES[dtype.name]
    return _tensor_v2(storage, offset, shape, strides, False, None, *flags, dtype=found)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise ValueError("a parameter has no tensor")
    return tensor


def _dict(items: Any = ()) -> dict[Any, Any]:
    """Python 2 gives the items of an OrderedDict as a list of pairs."""
    pairs = list(items.items()) if type(items) is dict else items
    if not isinstance(pairs, list | tuple):
        raise ValueError("the items of a dict are no pairs")
    found: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError("the items of a dict are no pairs")
        put_items(found, list(pair))
    return found


def _size(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list | tuple) or any(type(number) is not int for number in numbers):
        raise ValueError("a size is no list of whole numbers")
    return tuple(numbers)


def _texts(separator: str, parts: Sequence[Any]) -> str:
    """Join the parts of a path or of the name of a device."""
    if not all(type(part) in (str, int) for part in parts):
        raise ValueError("a path or device has no name")
    return separator.join(map(str, parts))


def _bytes(text: Any, encoding: Any) -> bytes:
    """Python 3 writes bytes in this way for Python 2."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError("its bytes are encoded in an unknown way")
    return text.encode("latin-1")


@dataclass
class _NumpyType:
    code: Any

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or state[1:2] not in (("<",), ("|",)):
            raise RefusedError("has numbers in an unknown byte order")


def _number(kind: Any, data: Any) -> int | float | bool:
    """Read a numpy scalar, such as the best accuracy so far."""
    if type(kind) is not _NumpyType or type(data) is not bytes:
        raise ValueError("a number of numpy is malformed")
    if kind.code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
        raise RefusedError(f"has a numpy scalar of the type {quoted(kind.code)}")
    if len(data) != np.dtype(kind.code).itemsize:
        raise ValueError("a number of numpy is malformed")
    return np.frombuffer(data, f"<{kind.code}")[0].item()


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
BUILDERS: Builders = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "argparse.Namespace": lambda: InertObject(),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _size,
    "torch.device": lambda *parts: _texts(":", parts),
    "numpy.dtype": lambda code, *_: _NumpyType(code),
    **{f"{root}.multiarray.scalar": _number for root in ("numpy.core", "numpy._core")},
    **{
        f"{module}.{name}": lambda *parts: _texts("/", parts)
        for module in ("pathlib", "pathlib._local")
        for name in _PATHS
    },
    "_codecs.encode": _bytes,
}
