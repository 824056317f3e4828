"""Data sets of TensorFlow Datasets in TFRecord format, read at any position and without it."""

import bisect
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int32, Int64

from deit_jax.data.sources import Record
from deit_jax.data.tfds import DESCRIPTION, record_name, version_directory
from deit_jax.data.tfrecord import Features, find_records, read_example, read_record

_FILE: Final = re.compile(r"-(?P<split>[^-]+)\.tfrecord-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def is_tfrecord(directory: str) -> bool:
    """Whether a prepared data set is in TFRecord format alone; older ones do not state it.

    Raises:
        FileNotFoundError, ValueError: if the directory holds no description of a data set.
    """
    info = _describe(version_directory(directory))
    formats = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    return "tfrecord" in formats and "array_record" not in formats


class TfRecordSource:
    """One split of a data set that has the features "image" and "label".

    When it is opened, the files are searched for where their records begin: seconds for ImageNet on
    a local disk. `labels` reads everything, so `python -m deit_jax prepare` is for larger data.

    Args:
        directory: the folder of its version, or one above it.
        split: such as "train"; a whole one.

    Raises:
        FileNotFoundError: if no prepared data set, or not all of it, lies there.
        ValueError: if the split or the features are not what is needed, or a file is damaged.
    """

    def __init__(self, directory: str, split: str):
        root = version_directory(directory)
        name = str(_describe(root).get("name", root.parent.name))
        self.name = f"{name}/{split}"
        self.class_names = _class_names(root, self.name)
        self.paths = _files(root, split)
        found = [find_records(path) for path in self.paths]
        self._where: Int64[np.ndarray, "records 2"] = np.concatenate(found)
        self._ends = np.cumsum([len(records) for records in found]).tolist()

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Of the places of the records, which are known without reading these."""
        return hashlib.sha256(self._where.astype("<i8").tobytes()).hexdigest()

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, "images"]:
        """The label of every image; -1 where the record is damaged."""
        labels = np.full(len(self), -1, np.int32)
        for index in range(len(self)):
            try:
                labels[index] = _label(self._features(index))
            except ValueError:
                # Reading it, for preparing or training, tells its name.
                continue
        return labels

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Record:
        features = self._features(index)
        images = features.get("image")
        if not images or not isinstance(images[0], bytes):
            raise ValueError(f"{self._place(index)} has no image.")
        names = features.get("file_name") or [b""]
        name = record_name(names[0] if isinstance(names[0], bytes) else None, self._place(index))
        return Record(images[0], _label(features), name)

    def _features(self, index: int) -> Features:
        file = bisect.bisect_right(self._ends, index)
        position, length = self._where[index].tolist()
        try:
            return read_example(read_record(self.paths[file], position, length))
        except ValueError as error:
            raise ValueError(f"{self._place(index)}: {error}") from error

    def _place(self, index: int) -> str:
        file = bisect.bisect_right(self._ends, index)
        return f"{self.paths[file].name}[{index - (self._ends[file - 1] if file else 0)}]"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "labels"}


def _label(features: Features) -> int:
    labels = features.get("label")
    if not labels or not isinstance(labels[0], int):
        raise ValueError("the record has no label that is a number")
    return labels[0]


def _describe(root: Path) -> dict[str, Any]:
    path = root / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it is no description.")
    return content


def _class_names(root: Path, name: str) -> tuple[str, ...]:
    """From label.labels.txt or, where classes have no names, their number in features.json."""
    names, features = root / "label.labels.txt", root / "features.json"
    if names.is_file():
        lines = (line.strip() for line in names.read_text(encoding="utf-8").split("\n"))
        return tuple(line for line in lines if line)
    try:
        content = json.loads(features.read_text(encoding="utf-8"))
        count = int(content["featuresDict"]["features"]["label"]["classLabel"]["numClasses"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name} has no label that is a class.") from error
    return tuple(str(number) for number in range(count))


def _files(root: Path, split: str) -> list[Path]:
    """All files of a split in order.

    Raises:
        FileNotFoundError: if one is missing, or all are.
        ValueError: if there is no such split.
    """
    found: dict[str, dict[int, Path]] = {}
    counts: dict[str, int] = {}
    for path in root.iterdir():
        if match := _FILE.search(path.name):
            found.setdefault(match["split"], {})[int(match["number"])] = path
            counts[match["split"]] = int(match["count"])
    if not found:
        raise FileNotFoundError(
            f"{root} holds no TFRecord files, which is the format its {DESCRIPTION} states."
        )
    if split not in found:
        raise ValueError(
            f"{root} has no split {split!r}: use {', '.join(sorted(found))}; parts of a split "
            "cannot be named here."
        )
    missing = counts[split] - len(found[split])
    if missing:
        raise FileNotFoundError(f"{root} lacks {missing} of {counts[split]} files of {split!r}.")
    return [found[split][number] for number in sorted(found[split])]
