"""ReaL accuracy: an answer is right if it is one of an image's labels (arXiv 2006.07159)."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from deit_jax.data.formats.folder import FolderSource
from deit_jax.data.source import Source
from deit_jax.evaluation.metrics import UNREAD, Answers

_NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})")

RealLabels = Sequence[frozenset[int]]


def match(source: Source, real: RealLabels) -> tuple[list[frozenset[int]], str]:
    """Return the labels of each image of a source, and a note on how they were found.

    The number in ILSVRC2012_val_00000001 says which image it is; where no image has one, the
    source must be in the order of the labels.

    Raises:
        ValueError: some images have numbers and others not, there is no such number among the
            labels, or without numbers there are not as many labels as images.
    """
    names = _names(source)
    numbers = [_NUMBER.search(name) for name in names]
    if not any(numbers):
        if len(names) != len(real):
            raise ValueError(
                f"{source.name} has {len(names)} images without the number of a validation image "
                f"of ImageNet in their names, and there are {len(real)} ReaL labels."
            )
        note = "The names of the images say no number, so ReaL labels go by their order."
        return list(real), note
    found = []
    for name, number in zip(names, numbers, strict=True):
        place = int(number[1]) if number else 0
        if not 1 <= place <= len(real):
            raise ValueError(
                f"{name} is no validation image of ImageNet that has ReaL labels (1 to "
                f"{len(real)})."
            )
        found.append(real[place - 1])
    return found, "ReaL labels go by the numbers in the names of the images."


def real_accuracy(
    answers: Mapping[str, Answers], labels: RealLabels
) -> tuple[dict[str, float], int]:
    """Return the accuracy of each head in percent, and how many images it is of.

    Images without a label, and images that could not be read, are left out.

    Raises:
        ValueError: no image is left.
    """
    rows = np.array([bool(allowed) for allowed in labels])
    rows &= np.all([values != UNREAD for values in answers.values()], axis=0)
    if not rows.any():
        raise ValueError("No image of the split has a ReaL label.")
    chosen = np.flatnonzero(rows).tolist()
    return {
        head: 100 * float(np.mean([int(values[row]) in labels[row] for row in chosen]))
        for head, values in answers.items()
    }, len(chosen)


def _names(source: Source) -> list[str]:
    if isinstance(source, FolderSource):
        # Without opening the images.
        return [source.path(index) for index in range(len(source))]
    return [source[index].name for index in range(len(source))]
