"""Image folders: directory/split/class/image.jpeg, as torchvision's ImageFolder reads them."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deit_jax.data.formats.packed_names import PackedNames
from deit_jax.data.identity import combine, of_numbers, sizes_of_files
from deit_jax.data.images.file import read_image_file
from deit_jax.data.images.names import EXTENSIONS, LeftOut, is_left_behind
from deit_jax.data.images.tree import image_tree
from deit_jax.data.source import Record
from deit_jax.messages import some


class FolderSource:
    """One split of an image folder; classes are the sub-folders, numbered in order of name.

    Images of a class may lie in folders below it; see `image_tree` for what is left out.

    Args:
        directory: the data set, which holds one folder for each split.
        split: name of that folder, such as "train" or "val".
        numeric_order: order folders that are called by numbers by these, 2 before 10: as
            ImageNet-V2 means it, and torchvision's ImageFolder does not read it.

    Raises:
        FileNotFoundError: if the folder or a class in it is missing or holds no images.
        OSError: if a folder cannot be read.
        ValueError: for `numeric_order`, if a folder's name is no number.
    """

    def __init__(self, directory: str, split: str, *, numeric_order: bool = False):
        root = Path(directory).expanduser() / split
        if not directory or not root.is_dir():
            raise FileNotFoundError(
                f"No folder {str(root)!r}: expected images in DIRECTORY/SPLIT/CLASS/IMAGE.jpeg"
                f"{_remedy(root)}."
            )
        self.root = str(root)
        self.name = f"{root.parent.name}/{split}"
        images_of: dict[str, list[str]] = {}
        tree = image_tree(self.root)
        left_out = LeftOut()
        for name in tree.pop("", []):
            left_out.add("images in no class folder", name)
        for folder, names in tree.items():
            images = images_of.setdefault(folder.split(os.sep, 1)[0], [])
            images += [os.path.join(folder, name) for name in names]
        self.class_names = in_order(images_of, numeric_order, self.root)
        if not self.class_names:
            raise FileNotFoundError(
                f"{self.root!r} holds no class folders: expected {split}/CLASS/IMAGE.jpeg in it."
            )
        files = [images_of[name] for name in self.class_names]
        for name, images in zip(self.class_names, files, strict=True):
            if not images:
                raise FileNotFoundError(
                    f"Class folder {os.path.join(self.root, name)!r} holds no images "
                    f"({', '.join(EXTENSIONS)}): remove it or fill it."
                )
        self.labels = np.repeat(
            np.arange(len(files), dtype=np.int32), [len(images) for images in files]
        )
        left_out.say(self.root)
        self._paths = PackedNames(path for images in files for path in images)

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def identity(self) -> str:
        """Of paths below the split's folder, labels and sizes of files."""
        sizes = sizes_of_files(self.root, self._paths)
        return combine([self._paths.digest(), of_numbers(self.labels, sizes)])

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Path of an image, relative to the folder of the split."""
        return self._paths[index]

    def __getitem__(self, index: int) -> Record:
        path = os.path.join(self.root, self.path(index))
        return Record(read_image_file(path), int(self.labels[index]), path)


def in_order(names: Iterable[str], numeric: bool, where: str) -> tuple[str, ...]:
    """Return the names of classes in the order that numbers them.

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
    # 1 and 01 may both be there.
    return tuple(sorted(names, key=lambda name: (int(name), name)))


def _remedy(root: Path) -> str:
    """Say what lies where the split's folder does not, as people mean it."""
    directory = root.parent
    if (directory.parent / root.name).is_dir():
        return f"; {str(directory.parent)!r} has a folder {root.name!r}: give that as the directory"
    if not directory.is_dir():
        return ""
    names = sorted(p.name for p in directory.iterdir() if p.is_dir() and not is_left_behind(p.name))
    if not names:
        return ""
    return (
        f"; {str(directory)!r} has {some(names)}: name the splits "
        "(--config.data.train_split, --config.data.eval_split; of evaluate --split) or, if these "
        f"are classes, divide them (python -m deit_jax split {directory} --output NEW)"
    )
