"""Data sets prepared by TensorFlow Datasets, in TFRecord or ArrayRecord format.

That package says what a split means and takes examples apart; TensorFlow is not needed.
"""

import bisect
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from jaxtyping import Int32
from tensorflow_datasets.proto import tf_example_pb2

from deit_jax.data.formats.tfds_description import (
    DESCRIPTION,
    Shards,
    TfdsDescription,
    read_description,
    version_directory,
)
from deit_jax.data.formats.tfds_records import FILES, RecordFiles
from deit_jax.data.identity import combine
from deit_jax.data.source import Record

# Tenths of a second on a local disk. Of a split in which one label in 200 is wrong, 1,000 records
# show it with a probability of 99.3 %; what they miss stops the run when it is met.
_LABELS_TRIED: Final = 1000


class _Piece(NamedTuple):
    """Successive records of one file, from number `first` on."""

    path: Path
    first: int
    records: int


class TfdsSource:
    """One split of a data set whose records have one image and one class.

    Images are delivered as the encoded bytes on disk. What the data set says of itself is checked
    when it is opened: features, names of files, records in each, and the labels of up to 1,000
    records spread over the split. `labels` reads everything, so `python -m deit_jax prepare` is for
    larger data.

    Args:
        directory: the prepared data set: the folder of its version, or one above it, such as
            "~/tensorflow_datasets/imagenet2012".
        split: such as "train" or "validation", or what else TensorFlow Datasets understands, such
            as "train[:10%]", "train[2shard:]+test" or "all".

    Raises:
        FileNotFoundError: if no prepared data set, or not all of it, lies there.
        ValueError: if the split, the features or the file format are not what is needed, a file is
            damaged or holds another number of records than described, or a label is no class.
    """

    def __init__(self, directory: str, split: str):
        description = read_description(version_directory(directory))
        self.name = f"{description.name}/{split}"
        self.class_names = description.class_names
        self._files = FILES[description.file_format]()
        self._pieces = _pieces(description, split, self._files)
        if not self._pieces:
            raise ValueError(f"{description.root}: {split!r} holds no records; name a larger part.")
        self._ends = np.cumsum([piece.records for piece in self._pieces]).tolist()
        for index in np.unique(np.linspace(0, len(self) - 1, _LABELS_TRIED, dtype=int)).tolist():
            self._tried_label(index)

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Of what is known of the files without reading the records."""
        return self._files.fingerprint([(p.path, p.first, p.records) for p in self._pieces])

    @property
    def identity(self) -> str:
        """Of the fingerprint: labels would have to be read."""
        return combine([self.name.rpartition("/")[2], self.fingerprint])

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, " images"]:
        """The label of every image; -1 where the record is damaged.

        Raises:
            ValueError: naming the record, if a label is no class.
        """
        return np.array([self._tried_label(index) for index in range(len(self))], np.int32)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        features = self._features(index)
        images = features["image"].bytes_list.value
        if len(images) != 1:
            raise ValueError(f"{self._place(index)} has {len(images)} images; one is needed.")
        # ImageNet keeps the names of its files, most data sets do not.
        names = [name.decode("utf-8", "replace") for name in features["file_name"].bytes_list.value]
        name = names[0] if names and names[0] else self._place(index)
        return Record(images[0], self._label(index, features), name)

    def _tried_label(self, index: int) -> int:
        """Return the label of a record, which is a class; -1 if the record is damaged."""
        try:
            label = self._label(index, self._features(index))
        except ValueError:
            # Reading it, for preparing or training, tells its name.
            return -1
        if not 0 <= label < self.num_classes:
            why = (
                "as in splits published without labels, which cannot be used"
                if label == -1
                else "so the files and their description do not belong together"
            )
            raise ValueError(
                f"{self._place(index)} of {self.name} has the label {label}, which is none of the "
                f"{self.num_classes} classes, counted from 0: {why}."
            )
        return label

    def _label(self, index: int, features: Any) -> int:
        labels = features["label"].int64_list.value
        if len(labels) != 1:
            raise ValueError(f"{self._place(index)} has {len(labels)} labels; one is needed.")
        return labels[0]

    def _features(self, index: int) -> Any:
        """Return the features of a `tf.train.Example`; those that it lacks are empty."""
        path, number = self._where(index)
        try:
            data = self._files.read(path, number)
            return tf_example_pb2.Example.FromString(data).features.feature
        except ValueError as error:
            raise ValueError(f"{self._place(index)}: {error}") from error
        except DecodeError as error:
            raise ValueError(f"{self._place(index)}: the record is no example") from error

    def _where(self, index: int) -> tuple[Path, int]:
        """File of a record, and its number in it."""
        index = range(len(self))[index]
        which = bisect.bisect_right(self._ends, index)
        piece = self._pieces[which]
        return piece.path, index - (self._ends[which] - piece.records) + piece.first

    def _place(self, index: int) -> str:
        path, number = self._where(index)
        return f"{path.name}[{number}]"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "labels"}


class _Split:
    """The files of a split and the records in each, looked up when they are asked for."""

    def __init__(self, description: TfdsDescription, name: str, files: RecordFiles) -> None:
        self._description, self._name, self._files = description, name, files

    @functools.cached_property
    def _shards(self) -> Shards:
        return self._description.shards(self._name)

    @functools.cached_property
    def shard_lengths(self) -> list[int]:
        """Return the records in each file; those are only opened if nothing else tells."""
        return self._shards.lengths or [self._files.count(path) for path in self._shards.paths]

    @property
    def num_examples(self) -> int:
        """Return the records in all files."""
        return sum(self.shard_lengths)

    def pieces(self, start: int, stop: int) -> Iterator[_Piece]:
        """Yield what is wanted of each file, and open only those.

        Raises:
            ValueError: a file does not hold the records it should.
        """
        begin = 0
        for path, length in zip(self._shards.paths, self.shard_lengths, strict=True):
            first, last = max(start - begin, 0), min(stop - begin, length)
            begin += length
            if first >= last:
                continue
            if (found := self._files.count(path)) != length:
                raise ValueError(
                    f"{path} holds {found:,} records, but {DESCRIPTION} says {length:,}: it is "
                    "incomplete or belongs to another data set; copy or prepare it again."
                )
            yield _Piece(path, first, last - first)


def _pieces(description: TfdsDescription, spec: str, files: RecordFiles) -> list[_Piece]:
    """Return what a split, parts of it or several of them consist of.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: there is no such split, it has fewer records than the slice needs, or a file
            does not hold the records it should.
    """
    try:
        instruction = tfds.core.ReadInstruction.from_spec(spec)
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{spec!r} is no split: write train, train[100:200], train[:10%], train[2shard:], or "
            "several with + in between."
        ) from error
    splits = {name: _Split(description, name, files) for name in description.splits}
    try:
        parts = instruction.to_absolute(splits)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{description.root}, {spec!r}: {reason}") from error
    pieces: list[_Piece] = []
    for part in parts:
        split = splits[part.splitname]
        stop = split.num_examples if part.to is None else part.to
        pieces += split.pieces(part.from_ or 0, stop)
    return pieces
