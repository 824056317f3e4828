"""Images of a folder or an archive whose labels are told by their paths or by a list."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deit_jax.data.formats.archives import Archive
from deit_jax.data.formats.folder import in_order
from deit_jax.data.formats.packed_names import PackedNames
from deit_jax.data.identity import combine, of_numbers, sizes_of_files
from deit_jax.data.images.file import read_image_file
from deit_jax.data.images.tree import image_tree
from deit_jax.data.source import Record


class FolderFiles:
    """The images in a folder and below it, as `image_tree` finds them.

    Raises:
        FileNotFoundError: if there is no such folder.
        OSError: if a folder in it cannot be read.
    """

    def __init__(self, root: str | Path):
        self.root = str(Path(root).expanduser())
        if not os.path.isdir(self.root):
            raise FileNotFoundError(f"No folder {self.root!r}.")
        self.names = PackedNames(
            os.path.join(folder, name)
            for folder, names in image_tree(self.root).items()
            for name in names
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def identity(self) -> str:
        """Of names and sizes."""
        return combine([self.names.digest(), of_numbers(sizes_of_files(self.root, self.names))])

    def name(self, index: int) -> str:
        """Path of an image."""
        return os.path.join(self.root, self.names[index])

    def read(self, index: int) -> bytes:
        """Return the bytes of an image."""
        return read_image_file(self.name(index))


Files = FolderFiles | Archive
"""Image files by number: `names`, `read` and, for errors, `name`; picklable."""


class ListedSource:
    """Chosen files with their labels.

    Args:
        name: what reports call the source.
        files: where the images are.
        chosen: numbers of the images among the files, in the order of the source.
        labels: one for each of them.
        class_names: one for each class.
    """

    def __init__(
        self,
        name: str,
        files: Files,
        chosen: Sequence[int] | np.ndarray,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
    ):
        self.name = name
        self.files = files
        self.chosen = np.asarray(chosen, np.int64)
        self.labels = np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        if len(self.chosen) != len(self.labels):
            raise ValueError(f"{name}: {len(self.chosen)} images but {len(self.labels)} labels.")

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def identity(self) -> str:
        """Of all files, of which of them these are and of their labels."""
        return combine([self.files.identity, of_numbers(self.chosen, self.labels)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Record:
        file = int(self.chosen[index])
        name = self.files.name(file)
        try:
            return Record(self.files.read(file), int(self.labels[index]), name)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def open_files(path: str | Path) -> Files:
    """Open a folder of images, a tar or a zip.

    Raises:
        FileNotFoundError: if there is neither.
        ValueError: if an archive is damaged.
    """
    return FolderFiles(path) if Path(path).expanduser().is_dir() else Archive(path)


def by_class_folder(
    files: Files, name: str, split: str = "", *, numeric_order: bool = False
) -> ListedSource:
    """One split whose images lie in SPLIT/CLASS/, or in CLASS/, numbered as `FolderSource` does.

    Folders around them, such as the one that `tar` packs, do not matter.

    Args:
        files: all images.
        name: of the source.
        split: name of the split's folder; "" if all files are of one split.
        numeric_order: order classes by the number that each is called by.

    Raises:
        ValueError: if there is no such split or an image lies in no class folder.
    """
    names = list(files.names)
    if not names:
        raise ValueError(f"{name} holds no images.")
    root = folder_of_classes(names, split, name)
    within = [
        (path.removeprefix(root), number)
        for number, path in enumerate(names)
        if path.startswith(root)
    ]
    flat = [path for path, _ in within if "/" not in path]
    if flat:
        raise ValueError(
            f"{name}: image {root + flat[0]!r} lies in no class folder; expected "
            f"{split or 'CLASS'}/{'CLASS/' if split else ''}IMAGE.jpeg."
        )
    classes = in_order({path.split("/", 1)[0] for path, _ in within}, numeric_order, name)
    number_of = {title: number for number, title in enumerate(classes)}
    # As FolderSource: by class, folder by folder below it, by file name.
    keyed = sorted(
        (number_of[path.split("/", 1)[0]], *os.path.split(path), number) for path, number in within
    )
    return ListedSource(name, files, [k[-1] for k in keyed], [k[0] for k in keyed], classes)


def folder_of_classes(names: list[str], split: str, title: str) -> str:
    """Return the folder that holds the class folders, with a slash at its end; "" for the top.

    Args:
        names: of all images.
        split: name of that folder, which others may lie around; "" if it has any name.
        title: for errors.

    Raises:
        ValueError: if there is no folder of the split.
    """
    common = os.path.commonpath([os.path.dirname(name) for name in names])
    folder = f"{common}/" if common else ""
    if not split:
        # If all images lie in one folder, they are one class.
        flat = all("/" not in name.removeprefix(folder) for name in names)
        return _parent(folder) if flat else folder
    while not any(name.startswith(f"{folder}{split}/") for name in names):
        if not folder:
            raise ValueError(
                f"{title} has no folder {split!r}: expected images in SPLIT/CLASS/IMAGE.jpeg, or "
                "name by --split the split that images in CLASS/IMAGE.jpeg are of."
            )
        folder = _parent(folder)
    return f"{folder}{split}/"


def _parent(folder: str) -> str:
    above = os.path.dirname(folder.rstrip("/"))
    return f"{above}/" if above else ""
