"""ReaL: several correct labels for each validation image of ImageNet (Beyer et al., 2020)."""

from pathlib import Path
from typing import Final

from deit_jax.files import read_json

_CLASSES: Final = 1000


def read_real_labels(path: str | Path) -> list[frozenset[int]]:
    """Read real.json of https://github.com/google-research/reassessed-imagenet.

    Args:
        path: a JSON list that has a list of classes (0 to 999, in the order of WordNet ids) for
            each validation image.

    Returns:
        Position i has the labels of the i-th image in the order of file names, which is
        ILSVRC2012_val_{i + 1:08}.JPEG. An image with no label at all counts in no accuracy.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"No file {str(path)!r}: expected ReaL's real.json.")
    content = read_json(file)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path} is not a list with the labels of each image.")
    labels = []
    for number, classes in enumerate(content):
        if not isinstance(classes, list) or not all(
            type(label) is int and 0 <= label < _CLASSES for label in classes
        ):
            raise ValueError(
                f"{path}: entry {number} is {classes!r}, not a list of classes from 0 to "
                f"{_CLASSES - 1}."
            )
        labels.append(frozenset(classes))
    return labels
