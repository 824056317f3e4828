"""CIFAR-10 and CIFAR-100 as their authors publish them: the binary and the Python version.

https://www.cs.toronto.edu/~kriz/cifar.html describes both formats. The Python version consists of
pickles, which are read without running them (`deit_jax.inert_pickle`).
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from deit_jax.data.formats.archives import read_packed
from deit_jax.data.source import ArraySource, Source
from deit_jax.inert_pickle import read_pickle

_PIXELS: Final = 3 * 32 * 32


class _Layout(NamedTuple):
    """Files of one version by split, and the file of the class names."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str


_BINARY: Final = {
    10: _Layout(
        tuple(f"data_batch_{n}.bin" for n in range(1, 6)), ("test_batch.bin",), "batches.meta.txt"
    ),
    100: _Layout(("train.bin",), ("test.bin",), "fine_label_names.txt"),
}
_PYTHON: Final = {
    10: _Layout(tuple(f"data_batch_{n}" for n in range(1, 6)), ("test_batch",), "batches.meta"),
    100: _Layout(("train",), ("test",), "meta"),
}


def open_cifar(path: Path, classes: int) -> dict[str, Source]:
    """Open both splits from an archive (.tar.gz), the unpacked folder, or the folder above.

    Args:
        path: where it is.
        classes: 10, or 100 (fine labels).

    Raises:
        FileNotFoundError: if the files of neither version are there.
        ValueError: if a file is damaged.
    """
    layout, contents = _find(path, classes)
    read = _binary if layout is _BINARY[classes] else _pickled
    names = _class_names(contents[layout.names], classes, layout)
    sources: dict[str, Source] = {}
    for split, files in (("train", layout.train), ("test", layout.test)):
        parts = []
        for file in files:
            try:
                parts.append(read(contents[file], classes))
            except ValueError as error:
                raise ValueError(f"{path}: {file} is damaged: {error}.") from error
        planes = np.concatenate([images for images, _ in parts]).reshape(-1, 3, 32, 32)
        images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        labels = np.concatenate([labels for _, labels in parts])
        sources[split] = ArraySource(f"cifar{classes}/{split}", images, labels, names)
    return sources


def _find(path: Path, classes: int) -> tuple[_Layout, dict[str, bytes]]:
    """Return the version that is there, and the contents of its files by name."""
    for place in _places(path, classes):
        for layout in (_BINARY[classes], _PYTHON[classes]):
            wanted = {*layout.train, *layout.test, layout.names}
            contents = read_packed(place, wanted) if place.is_file() else _read(place, wanted)
            if contents.keys() == wanted:
                return layout, contents
    raise FileNotFoundError(
        f"{str(path)!r} holds neither version of CIFAR-{classes}: expected "
        f"cifar-{classes}-binary.tar.gz or cifar-{classes}-python.tar.gz, unpacked or not."
    )


def _places(path: Path, classes: int) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    names = ("-batches-bin", "-batches-py", "-binary", "-python")
    yield path
    for name in names:
        if (path / f"cifar-{classes}{name}").is_dir():
            yield path / f"cifar-{classes}{name}"
    for name in names[2:]:
        if (path / f"cifar-{classes}{name}.tar.gz").is_file():
            yield path / f"cifar-{classes}{name}.tar.gz"


def _read(folder: Path, wanted: set[str]) -> dict[str, bytes]:
    if not all((folder / name).is_file() for name in wanted):
        return {}
    return {name: (folder / name).read_bytes() for name in wanted}


def _binary(data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Split records of one label (of CIFAR-100 two) and three planes of pixels."""
    size = _PIXELS + (1 if classes == 10 else 2)
    if not data or len(data) % size:
        raise ValueError(f"its {len(data):,} bytes are no multiple of {size:,}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, size)
    return _checked(rows[:, -_PIXELS:], rows[:, -_PIXELS - 1], classes)


class _Array:
    """What stands for a NumPy array in a pickle."""

    def __init__(self, *_: Any):
        self.values = np.zeros(0, np.uint8)

    def set_state(self, state: Any) -> None:
        """Take (version, shape, dtype, Fortran order, bytes)."""
        if type(state) is not tuple or len(state) != 5 or state[3]:
            raise ValueError("an array is stored in an unknown way")
        data = state[4].encode() if isinstance(state[4], str) else state[4]
        self.values = np.frombuffer(data, np.uint8)


def _pickled(data: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a dict with the images under "data" and the labels under "labels" or "fine_labels"."""
    batch = _unpickle(data)
    labels = batch.get("labels" if classes == 10 else "fine_labels")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError("it has no list of labels")
    images = batch.get("data")
    if not isinstance(images, _Array) or images.values.size != len(labels) * _PIXELS:
        raise ValueError("it has not one image for each label")
    return _checked(images.values.reshape(-1, _PIXELS), np.array(labels), classes)


def _unpickle(data: bytes) -> dict[str, Any]:
    builders = {
        "numpy.core.multiarray._reconstruct": _Array,
        # Only bytes are stored; the shape follows from their number.
        "numpy.dtype": lambda *_: object(),
    }
    content = read_pickle(io.BytesIO(data), builders, frozenset({"numpy.ndarray"}))
    if not isinstance(content, dict):
        raise ValueError("it is no dict")
    return content


def _checked(images: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"it has a label outside 0 to {classes - 1}")
    return images, labels


def _class_names(data: bytes, classes: int, layout: _Layout) -> list[str]:
    if layout is _BINARY[classes]:
        names = data.decode("utf-8", "replace").split()
    else:
        names = _unpickle(data).get("label_names" if classes == 10 else "fine_label_names", [])
    if len(names) != classes:
        raise ValueError(f"{layout.names} has {len(names)} class names instead of {classes}.")
    return [str(name) for name in names]
