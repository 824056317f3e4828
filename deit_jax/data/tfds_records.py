"""Data sets of TensorFlow Datasets in TFRecord format, read at any position and without it."""

import bisect
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from deit_jax.data.sources import Record
from deit_jax.data.split_slices import ALL, parse_split
from deit_jax.data.tfds import DESCRIPTION, record_name, version_directory
from deit_jax.data.tfrecord import Features, find_records, read_example, read_record

_FILE: Final = re.compile(r"-(?P<split>[^-]+)\.tfrecord-(?P<number>\d{5})-of-(?P<count>\d{5})$")


class _Piece(NamedTuple):
    """Successive records of one file: the number of the first, and where each one lies."""

    path: Path
    first: int
    where: Int64[np.ndarray, "records 2"]


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
        split: such as "train"; slices such as "train[:10%]" work too, and mean the same as to
            TensorFlow Datasets.

    Raises:
        FileNotFoundError: if no prepared data set, or not all of it, lies there.
        ValueError: if the split or the features are not what is needed, or a file is damaged.
    """

    def __init__(self, directory: str, split: str):
        root = version_directory(directory)
        info = _describe(root)
        self.name = f"{info.get('name', root.parent.name)}/{split}"
        self.class_names = _class_names(root, self.name)
        pieces = _pieces(root, split, info)
        if not pieces:
            raise ValueError(f"{root}: {split!r} holds no records; name a larger part.")
        self.paths = [piece.path for piece in pieces]
        self._first = [piece.first for piece in pieces]
        self._where: Int64[np.ndarray, "records 2"] = np.concatenate([p.where for p in pieces])
        self._ends = np.cumsum([len(piece.where) for piece in pieces]).tolist()

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
        number = index - (self._ends[file - 1] if file else 0) + self._first[file]
        return f"{self.paths[file].name}[{number}]"

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


def _pieces(root: Path, spec: str, info: dict[str, Any]) -> list[_Piece]:
    """What is wanted of each file, in order; files of which nothing is wanted are left out.

    Raises:
        FileNotFoundError: if a file is missing, or all are.
        ValueError: if there is no such split, or it has fewer records than the slice needs.
    """
    splits = _files(root)
    find = functools.cache(find_records)
    pieces = []
    for part in parse_split(spec):
        for name in _described(info, splits) if part.split == ALL else [part.split]:
            paths = _complete(root, splits, name)
            wanted = part.records([len(find(path)) for path in paths])
            begin = 0
            for path in paths:
                where = find(path)
                first, last = max(wanted.start - begin, 0), min(wanted.stop - begin, len(where))
                if first < last:
                    pieces.append(_Piece(path, first, where[first:last]))
                begin += len(where)
    return pieces


def _described(info: dict[str, Any], splits: Iterable[str]) -> list[str]:
    """The names of all splits in the order of the description."""
    order = [entry.get("name") for entry in info.get("splits", [])]
    return sorted(splits, key=lambda name: order.index(name) if name in order else len(order))


def _files(root: Path) -> dict[str, list[Path | None]]:
    """The files of each split in order; None in place of one that is missing.

    Raises:
        FileNotFoundError: if there is none at all.
        ValueError: if the files of a split do not agree on how many they are.
    """
    splits: dict[str, list[Path | None]] = {}
    for path in sorted(root.iterdir()):
        if match := _FILE.search(path.name):
            number, count = int(match["number"]), int(match["count"])
            files = splits.setdefault(match["split"], [None] * count)
            if len(files) != count or number >= count:
                raise ValueError(
                    f"{path} does not belong to the files beside it: remove what is old."
                )
            files[number] = path
    if not splits:
        raise FileNotFoundError(
            f"{root} holds no TFRecord files, which is the format its {DESCRIPTION} states."
        )
    return splits


def _complete(root: Path, splits: dict[str, list[Path | None]], name: str) -> list[Path]:
    """The files of one split.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if there is no such split.
    """
    if name not in splits:
        raise ValueError(f"{root} has no split {name!r}: use {', '.join(splits)}.")
    files = [path for path in splits[name] if path is not None]
    missing = len(splits[name]) - len(files)
    if missing:
        raise FileNotFoundError(f"{root} lacks {missing} of {len(splits[name])} files of {name!r}.")
    return files
