"""What a data set prepared by TensorFlow Datasets says about itself, checked against our needs.

`dataset_info.json` names the format, the splits, the files of each and the records in each file;
`features.json` says what a record holds. Both are plain JSON, read without that package
(tensorflow_datasets/core/proto/dataset_info.proto and feature.proto; core/naming.py).
"""

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from deit_jax.files import read_json

DESCRIPTION: Final = "dataset_info.json"
FEATURES: Final = "features.json"
_PLACES: Final = (DESCRIPTION, f"*/{DESCRIPTION}", f"*/*/{DESCRIPTION}")
FILE_FORMATS: Final = ("array_record", "tfrecord")


class Shards(NamedTuple):
    """The files of a split in order; `lengths`, the records in each, is None in old data sets."""

    paths: list[Path]
    lengths: list[int] | None


class TfdsDescription(NamedTuple):
    """A data set that has one image and one class in each record.

    Attributes:
        root: its folder.
        name: as TensorFlow Datasets calls it.
        file_format: one of `FILE_FORMATS`, the first of those it has.
        class_names: one for each class; numbers where they have none.
        splits: the description of each, by its name, in its order.
    """

    root: Path
    name: str
    file_format: str
    class_names: tuple[str, ...]
    splits: dict[str, dict[str, Any]]

    def shards(self, split: str) -> Shards:
        """Return the files of a split, all of which are there.

        Raises:
            FileNotFoundError: files are missing.
            ValueError: there is no such split.
        """
        if split not in self.splits:
            raise ValueError(f"{self.root} has no split {split!r}: use {', '.join(self.splits)}.")
        content = self.splits[split]
        lengths = [int(length) for length in content.get("shardLengths", [])] or None
        count = len(lengths) if lengths else self._count_from_names(split)
        paths = [self._path(split, number, count) for number in range(count)]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.root} lacks {len(missing)} of {count} files of {split!r}, such as "
                f"{missing[0].name}: copy or prepare them again."
            )
        return Shards(paths, lengths)

    def _path(self, split: str, number: int, count: int) -> Path:
        import tensorflow_datasets as tfds

        # What stands behind % says how files are encoded, and is no part of their names.
        template = str(self.splits[split].get("filepathTemplate") or "").partition("%")[0]
        names = tfds.core.ShardedFileTemplate(
            self.root, template, self.name, split, self.file_format
        )
        try:
            return Path(names.sharded_filepath(shard_index=number, num_shards=count))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"{self.root / DESCRIPTION} has names of files that cannot be understood: "
                f"{template!r}."
            ) from error

    def _count_from_names(self, split: str) -> int:
        """Return how many files a split has where the description does not say it."""
        start = re.escape(f"{self.name}-{split}.{self.file_format}-")
        found = (
            re.fullmatch(rf"{start}\d{{5,}}-of-(\d{{5,}})", p.name) for p in self.root.iterdir()
        )
        counts = {int(match[1]) for match in found if match}
        if len(counts) != 1:
            told = f"different numbers of files: {sorted(counts)}" if counts else "no files"
            raise FileNotFoundError(f"{self.root} has {told} of {split!r}.")
        return counts.pop()


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


def read_description(root: Path) -> TfdsDescription:
    """Read and check the two files.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: it is damaged, or the data set is not one of labelled images in a format that
            can be read.
    """
    info = _read_json(root / DESCRIPTION)
    name = str(info.get("name") or root.parent.name)
    stated = [info.get("fileFormat") or "tfrecord", *info.get("alternativeFileFormats", [])]
    formats = [known for known in FILE_FORMATS if known in stated]
    if not formats:
        raise ValueError(
            f"{root} is in {' and '.join(map(str, stated))} format, which cannot be read: prepare "
            "it again with file_format='array_record'."
        )
    splits = info.get("splits", [])
    if not isinstance(splits, list) or not all(isinstance(s, dict) and "name" in s for s in splits):
        raise ValueError(f"{root / DESCRIPTION} is damaged: it does not describe splits.")
    by_name = {str(split["name"]): split for split in splits}
    return TfdsDescription(root, name, formats[0], _class_names(root), by_name)


def _class_names(root: Path) -> tuple[str, ...]:
    """Return the names of the classes, once the features have been checked."""
    labels = root / "label.labels.txt"
    text = labels.read_text(encoding="utf-8") if labels.is_file() else ""
    names = tuple(line.strip() for line in text.split("\n") if line.strip())
    if names and not (root / FEATURES).is_file():
        # The oldest data sets have no such file; each record is then checked when it is read.
        return names
    count = _check_features(root / FEATURES)
    if names and count not in (0, len(names)):
        raise ValueError(f"{labels} names {len(names)} classes, but {FEATURES} has {count}.")
    if not names and not count:
        raise ValueError(f"{root / FEATURES} does not say how many classes there are.")
    return names or tuple(str(number) for number in range(count))


def _check_features(path: Path) -> int:
    """Refuse records of anything but an image and a class; return how many classes, 0 if unsaid."""
    features = _parts(_read_json(path))
    for name, kind, needed in (
        ("image", "image", "Image of type uint8"),
        ("label", "classLabel", "ClassLabel"),
    ):
        if name not in features:
            raise ValueError(
                f"{path} has no feature {name!r} but {', '.join(features) or 'none'}: one {needed} "
                "of that name is needed."
            )
        spec = features[name]
        if _content(spec, kind) is None or (kind == "image" and _dtype(spec) != "uint8"):
            raise ValueError(
                f"The feature {name!r} in {path} must be one {needed}, but is {_spell(spec)}."
            )
    content = _content(features["label"], "classLabel") or {}
    return int(content.get("numClasses") or content.get("num_classes") or 0)


def _parts(spec: Any) -> dict[str, Any]:
    """Return the features in a dictionary of them."""
    content = _content(spec, "featuresDict") or {}
    found = content.get("features", content)
    return found if isinstance(found, dict) else {}


def _kind(spec: Any) -> str:
    """Return the class of a feature, such as "ClassLabel"."""
    name = spec.get("pythonClassName", spec.get("type", "")) if isinstance(spec, dict) else ""
    return str(name).rpartition(".")[2]


def _content(spec: Any, needed: str) -> dict[str, Any] | None:
    """Return what is said of a feature that is of the kind needed, else None.

    Old files say it under "content" or "jsonFeature", as an object or as text.
    """
    if not isinstance(spec, dict):
        return None
    content = spec.get(needed)
    if content is None and _kind(spec).lower() == needed.lower():
        content = spec.get("content", (spec.get("jsonFeature") or {}).get("json"))
    content = json.loads(content) if isinstance(content, str) else content
    return content if isinstance(content, dict) else None


def _dtype(spec: dict[str, Any]) -> str:
    return str((_content(spec, "image") or {}).get("dtype", "uint8"))


def _spell(spec: Any) -> str:
    """Return a feature as TensorFlow Datasets writes it, such as Sequence(ClassLabel)."""
    if isinstance(spec, dict) and isinstance(spec.get("sequence"), dict):
        return f"Sequence({_spell(spec['sequence'].get('feature'))})"
    kind = _kind(spec) or "of no known kind"
    return kind if _content(spec, "image") is None else f"{kind}({_dtype(spec)})"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing, which describes the data set: copy it from where the data set "
            "comes from, or prepare it again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it is no description.")
    return content
