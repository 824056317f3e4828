"""Data sets prepared by TensorFlow Datasets, read without TensorFlow.

Those in ArrayRecord format are read by TensorFlow Datasets itself; for TFRecord, its default, see
`deit_jax.data.tfds_records`.
"""

import functools
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int32

from deit_jax.data.sources import Record

DESCRIPTION: Final = "dataset_info.json"
_PLACES: Final = (DESCRIPTION, f"*/{DESCRIPTION}", f"*/*/{DESCRIPTION}")


class TfdsSource:
    """One split of a data set in ArrayRecord format that has the features "image" and "label".

    Images are delivered as the encoded bytes on disk. Each process opens the files for itself:
    only the two arguments are pickled.

    Args:
        directory: the prepared data set: the folder of its version, or one above it, such as
            "~/tensorflow_datasets/imagenet2012".
        split: such as "train" or "validation"; slices such as "train[:10%]" work too.

    Raises:
        ModuleNotFoundError: if tensorflow_datasets is not installed.
        FileNotFoundError: if no prepared data set lies there.
        ValueError: if the split, the features or the file format are not what is needed.
    """

    def __init__(self, directory: str, split: str):
        self.directory = str(version_directory(directory))
        self.split = split
        features = dict(self._opened[1].features)
        if "image" not in features or not hasattr(features.get("label"), "names"):
            raise ValueError(
                f"{self.name} has the features {', '.join(features)}: "
                "an image and a label that is a class are needed."
            )

    @functools.cached_property
    def _opened(self) -> tuple[Any, Any]:
        """The records and the description of the data set."""
        try:
            import tensorflow_datasets as tfds
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Prepared data sets are read by TensorFlow Datasets: pip install 'deit_jax[tfds]'."
            ) from error
        builder = tfds.builder_from_directory(self.directory)
        raw = {"image": tfds.decode.SkipDecoding()} if "image" in builder.info.features else None
        try:
            return builder.as_data_source(self.split, decoders=raw), builder.info
        except NotImplementedError as error:
            raise ValueError(
                f"{self.directory} is neither in ArrayRecord nor in TFRecord format: prepare it "
                "again with file_format='array_record'."
            ) from error
        except ValueError as error:
            raise ValueError(
                f"{self.directory} has no split {self.split!r}: "
                f"use {', '.join(builder.info.splits)}."
            ) from error

    @property
    def name(self) -> str:
        """Name and split of the data set."""
        return f"{self._opened[1].name}/{self.split}"

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return int(self._opened[1].features["label"].num_classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names as the data set gives them."""
        return tuple(self._opened[1].features["label"].names)

    @property
    def fingerprint(self) -> str:
        """Of the sizes of the files, which are known without reading these."""
        files = self._opened[1].splits[self.split].filepaths
        return " ".join(str(Path(file).stat().st_size) for file in files)

    @functools.cached_property
    def labels(self) -> Int32[np.ndarray, "images"]:
        """The label of every image: reads the whole split once (about 13,000 records a second)."""
        return np.array([record["label"] for record in self._opened[0]], np.int32)

    def __len__(self) -> int:
        return len(self._opened[0])

    def __getitem__(self, index: int) -> Record:
        record = self._opened[0][index]
        return Record(
            record["image"],
            int(record["label"]),
            record_name(record.get("file_name"), f"{self.name}[{index}]"),
        )

    def __getstate__(self) -> dict[str, str]:
        return {"directory": self.directory, "split": self.split}


def record_name(file_name: bytes | None, otherwise: str) -> str:
    """What to call a record: ImageNet keeps the names of its files, most data sets do not."""
    return file_name.decode("utf-8", "replace") if file_name else otherwise


def is_prepared(directory: str) -> bool:
    """Whether a data set of TensorFlow Datasets, or several, lie in a directory."""
    root = Path(directory).expanduser()
    return any(next(root.glob(pattern), None) is not None for pattern in _PLACES)


def version_directory(directory: str) -> Path:
    """The folder that describes the data set, at `directory` or up to two levels below.

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
