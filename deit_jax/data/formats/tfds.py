"""Data sets prepared by TensorFlow Datasets, in TFRecord or ArrayRecord format, without it."""

import bisect
import functools
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Int32

from deit_jax.data.formats.tfds_description import DESCRIPTION, TfdsDescription, read_description
from deit_jax.data.formats.tfds_records import FILES, RecordFiles
from deit_jax.data.formats.tfds_slices import ALL, Slice, parse_split
from deit_jax.data.formats.tfrecord import Features, read_example
from deit_jax.data.identity import combine
from deit_jax.data.source import Record

_PLACES: Final = (DESCRIPTION, f"*/{DESCRIPTION}", f"*/*/{DESCRIPTION}")
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
        split: such as "train" or "validation"; slices such as "train[:10%]" work too, and mean the
            same as to TensorFlow Datasets.

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
        self._pieces = [
            piece
            for part in parse_split(split)
            for name in (description.splits if part.split == ALL else [part.split])
            for piece in _pieces(description, name, part, self._files)
        ]
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
        images = features.get("image", [])
        if len(images) != 1 or not isinstance(images[0], bytes):
            raise ValueError(f"{self._place(index)} has {len(images)} images; one is needed.")
        names = features.get("file_name") or [b""]
        # ImageNet keeps the names of its files, most data sets do not.
        own = names[0].decode("utf-8", "replace") if isinstance(names[0], bytes) else ""
        return Record(images[0], self._label(index, features), own or self._place(index))

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

    def _label(self, index: int, features: Features) -> int:
        labels = features.get("label", [])
        if len(labels) != 1 or not isinstance(labels[0], int):
            raise ValueError(f"{self._place(index)} has {len(labels)} labels; one is needed.")
        return labels[0]

    def _features(self, index: int) -> Features:
        path, number = self._where(index)
        try:
            return read_example(self._files.read(path, number))
        except ValueError as error:
            raise ValueError(f"{self._place(index)}: {error}") from error

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


def _pieces(
    description: TfdsDescription, split: str, part: Slice, files: RecordFiles
) -> list[_Piece]:
    """Return what is wanted of each file of a split, in order.

    Only those files are opened if lengths are known.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if there is no such split, it has fewer records than the slice needs, or a file
            does not hold the records it should.
    """
    paths, described = description.shards(split)
    lengths = described or [files.count(path) for path in paths]
    wanted = part.records(lengths)
    pieces, begin = [], 0
    for path, length in zip(paths, lengths, strict=True):
        first, last = max(wanted.start - begin, 0), min(wanted.stop - begin, length)
        begin += length
        if first >= last:
            continue
        if (found := files.count(path)) != length:
            raise ValueError(
                f"{path} holds {found:,} records, but {DESCRIPTION} says {length:,}: it is "
                "incomplete or belongs to another data set; copy or prepare it again."
            )
        pieces.append(_Piece(path, first, last - first))
    return pieces


def is_prepared(directory: str) -> bool:
    """Return whether a data set of TensorFlow Datasets, or several, lie in a directory."""
    root = Path(directory).expanduser()
    return any(next(root.glob(pattern), None) is not None for pattern in _PLACES)


def version_directory(directory: str) -> Path:
    """Return the folder that describes the data set, at `directory` or up to two levels below.

    Raises:
        FileNotFoundError: if there is none, or there are several.
    """
    root = Path(directory).expanduser()
    for pattern in _PLACES:
        found = sorted(root.glob(pattern)) if directory else []
        if len(found) > 1:
            names = ", ".join(str(path.parent.relative_to(root)) for path in found)
            raise FileNotFoundError(f"{directory!r} holds several data sets, name one: {names}.")
        if found:
            return found[0].parent
    raise FileNotFoundError(
        f"No prepared data set in {directory!r}: expected a folder with {DESCRIPTION}."
    )
