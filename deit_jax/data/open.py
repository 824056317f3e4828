"""The one opener of data sets, in whatever form they are; formats do not know it."""

from pathlib import Path

from deit_jax.data.combined import Joined
from deit_jax.data.formats.archives import ARCHIVES, Archive, is_archive
from deit_jax.data.formats.digits import open_digits
from deit_jax.data.formats.folder import FolderSource
from deit_jax.data.formats.listed import by_class_folder, open_files
from deit_jax.data.formats.prepared import PreparedSource
from deit_jax.data.formats.tfds_description import is_prepared
from deit_jax.data.papers.facts import DATASETS
from deit_jax.data.source import Source


def open_source(kind: str, split: str, directory: str = "") -> Source:
    """Open a data set.

    Args:
        kind: "digits" (inside scikit-learn), "folder" (`directory/split/class/image.jpeg`),
            "numbered_folder" (the same with classes called by numbers and in their order, as in
            ImageNet-V2), "prepared" (written by the command `prepare`) or "tfds" (a directory
            that TensorFlow Datasets prepared, in ArrayRecord or TFRecord format).
        split: which part; the names depend on the data set.
        directory: where the files are; digits need none.

    Raises:
        ValueError: for an unknown kind or split, or a damaged data set.
        FileNotFoundError: if the directory holds no such data set.
        ModuleNotFoundError: if the kind needs an extra that is not installed.
    """
    if kind == "digits":
        return open_digits(split)
    if kind in ("folder", "numbered_folder"):
        return FolderSource(directory, split, numeric_order=kind == "numbered_folder")
    if kind == "prepared":
        return PreparedSource(directory, split)
    if kind == "tfds":
        # Takes half a second to import.
        from deit_jax.data.formats.tfds import TfdsSource

        return TfdsSource(directory, split)
    kinds = "digits, folder, numbered_folder, prepared or tfds"
    raise ValueError(f"Unknown data source {kind!r}: use {kinds}.")


def open_splits(path: Path, splits: list[str]) -> dict[str, Source]:
    """Open splits of a folder, an archive or a data set of TensorFlow Datasets.

    Args:
        path: a tar or zip with SPLIT/CLASS/IMAGE in it; or a folder with, for each split, such a
            folder or an archive SPLIT.tar or SPLIT.zip with CLASS/IMAGE in it; or a data set that
            TensorFlow Datasets prepared.
        splits: their names.

    Raises:
        FileNotFoundError, ValueError: if a split is not there or the files are damaged.
    """
    if path.is_file():
        archive = Archive(path)
        return {split: by_class_folder(archive, f"{path.stem}/{split}", split) for split in splits}
    if is_prepared(str(path)):
        return {split: open_source("tfds", split, str(path)) for split in splits}
    return {split: _open_split(path, split) for split in splits}


def open_alone(path: Path, split: str) -> dict[str, Source]:
    """Open a folder or archive of CLASS/IMAGE as the one split of that name.

    Raises:
        FileNotFoundError, ValueError: as `open_splits`.
    """
    return {split: by_class_folder(open_files(path), f"{path.stem}/{split}")}


def open_named(name: str, path: Path, val_labels: str = "") -> dict[str, Source]:
    """Open all splits of a data set of the paper.

    Args:
        name: one of `DATASETS`.
        path: what its authors publish, or the data set as TensorFlow Datasets prepared it.
        val_labels: see `deit_jax.data.papers.imagenet.read_labels`.

    Raises:
        FileNotFoundError, ValueError: as `open_splits`.
        ModuleNotFoundError: if SciPy is needed and not installed.
    """
    if name not in DATASETS:
        raise ValueError(f"There is no data set {name!r}: use {', '.join(DATASETS)}.")
    data_set = DATASETS[name]
    if not (path.is_dir() and is_prepared(str(path))):
        return data_set.open(path, val_labels)
    sources: dict[str, Source] = {}
    for split, parts in data_set.tfds.items():
        opened = [open_source("tfds", part, str(path)) for part in parts]
        sources[split] = opened[0] if len(opened) == 1 else Joined(f"{name}/{split}", opened)
    return sources


def _open_split(path: Path, split: str) -> Source:
    for ending in ARCHIVES:
        archive = path / f"{split}{ending}"
        if not (path / split).is_dir() and is_archive(archive):
            return by_class_folder(Archive(archive), f"{path.name}/{split}")
    return open_source("folder", split, str(path))
