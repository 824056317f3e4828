"""Image folders: directory/split/class/image.jpeg, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from deit_jax.data.names import Names
from deit_jax.data.sources import Record

# torchvision.datasets.folder.IMG_EXTENSIONS, matched without regard to case.
EXTENSIONS: Final = (
    ".jpg",
    ".jpeg",
    ".png",
    ".ppm",
    ".bmp",
    ".pgm",
    ".tif",
    ".tiff",
    ".webp",
)


class FolderSource:
    """One split of an image folder; classes are the sub-folders, numbered in order of name.

    Images of a class may lie in folders below it.

    Args:
        directory: the data set, which holds one folder for each split.
        split: name of that folder, such as "train" or "val".
        numeric_order: order folders that are called by numbers by these, 2 before 10: as
            ImageNet-V2 means it, and torchvision's ImageFolder does not read it.

    Raises:
        FileNotFoundError: if the folder or a class in it is missing or holds no images.
        ValueError: for `numeric_order`, if a folder's name is no number.
    """

    def __init__(self, directory: str, split: str, *, numeric_order: bool = False):
        root = Path(directory).expanduser() / split
        if not directory or not root.is_dir():
            raise FileNotFoundError(
                f"No folder {str(root)!r}: expected images in DIRECTORY/SPLIT/CLASS/IMAGE.jpeg."
            )
        self.root = str(root)
        self.name = f"{root.parent.name}/{split}"
        found = (entry.name for entry in root.iterdir() if entry.is_dir())
        self.class_names = in_order(found, numeric_order, self.root)
        if not self.class_names:
            raise FileNotFoundError(
                f"{self.root!r} holds no class folders: expected {split}/CLASS/IMAGE.jpeg in it."
            )
        files = [images_below(self.root, name) for name in self.class_names]
        for name, images in zip(self.class_names, files, strict=True):
            if not images:
                raise FileNotFoundError(
                    f"Class folder {os.path.join(self.root, name)!r} holds no images "
                    f"({', '.join(EXTENSIONS)}): remove it or fill it."
                )
        self.labels = np.repeat(
            np.arange(len(files), dtype=np.int32), [len(images) for images in files]
        )
        self._paths = Names(path for images in files for path in images)

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path of an image, relative to the folder of the split."""
        return self._paths[index]

    def __getitem__(self, index: int) -> Record:
        path = os.path.join(self.root, self.path(index))
        with open(path, "rb") as file:
            return Record(file.read(), int(self.labels[index]), path)


def in_order(names: Iterable[str], numeric: bool, where: str) -> tuple[str, ...]:
    """The names of classes in the order that numbers them.

    Raises:
        ValueError: if the order is numeric and a name is no number.
    """
    if not numeric:
        return tuple(sorted(names))
    names = list(names)
    wrong = [name for name in names if not (name.isascii() and name.isdigit())]
    if wrong:
        raise ValueError(
            f"{where} has a class {wrong[0]!r}, which is no number: open it in the order of names."
        )
    return tuple(sorted(names, key=int))


def images_below(root: str, folder: str) -> list[str]:
    """Paths of the images in a folder or below it, relative to `root`, in torchvision's order."""
    found = []
    for place, _, names in sorted(os.walk(os.path.join(root, folder), followlinks=True)):
        below = os.path.relpath(place, root)
        found += [
            os.path.join(below, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS)
        ]
    return found
