"""Image folders: directory/split/class/image.jpeg, as torchvision's ImageFolder reads them."""

import os
from pathlib import Path
from typing import Final

import numpy as np

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

    Images of a class may lie in folders below it. Paths are kept in one block of bytes (35 MB for
    ImageNet), which reader processes receive at little cost.

    Args:
        directory: the data set, which holds one folder for each split.
        split: name of that folder, such as "train" or "val".

    Raises:
        FileNotFoundError: if the folder or a class in it is missing or holds no images.
    """

    def __init__(self, directory: str, split: str):
        root = Path(directory).expanduser() / split
        if not directory or not root.is_dir():
            raise FileNotFoundError(
                f"No folder {str(root)!r}: expected images in DIRECTORY/SPLIT/CLASS/IMAGE.jpeg."
            )
        self.root = str(root)
        self.name = f"{root.parent.name}/{split}"
        self.class_names = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
        if not self.class_names:
            raise FileNotFoundError(
                f"{self.root!r} holds no class folders: expected {split}/CLASS/IMAGE.jpeg in it."
            )
        files = [_images_below(self.root, name) for name in self.class_names]
        for name, found in zip(self.class_names, files, strict=True):
            if not found:
                raise FileNotFoundError(
                    f"Class folder {os.path.join(self.root, name)!r} holds no images "
                    f"({', '.join(EXTENSIONS)}): remove it or fill it."
                )
        self.labels = np.repeat(
            np.arange(len(files), dtype=np.int32), [len(found) for found in files]
        )
        encoded = [os.fsencode(path) for found in files for path in found]
        self._paths = b"".join(encoded)
        self._ends = np.cumsum([len(path) for path in encoded])

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path of an image, relative to the folder of the split."""
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._paths[start : self._ends[index]])

    def __getitem__(self, index: int) -> Record:
        path = os.path.join(self.root, self.path(index))
        with open(path, "rb") as file:
            return Record(file.read(), int(self.labels[index]), path)


def _images_below(root: str, class_name: str) -> list[str]:
    """Paths of the images of a class, relative to `root`, in torchvision's order."""
    found = []
    for folder, _, names in sorted(os.walk(os.path.join(root, class_name), followlinks=True)):
        below = os.path.relpath(folder, root)
        found += [
            os.path.join(below, name) for name in sorted(names) if name.lower().endswith(EXTENSIONS)
        ]
    return found
