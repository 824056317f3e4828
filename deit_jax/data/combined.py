"""Smaller data sets out of larger ones: some of the classes, some of the images."""

import numpy as np

from deit_jax.data.draws import balanced_order
from deit_jax.data.identity import combine, of_numbers
from deit_jax.data.source import Record, Source, subset


class ClassSubset:
    """Some classes of another source, numbered anew in the order of that source.

    Args:
        source: all classes.
        classes: labels to keep, rising.
    """

    def __init__(self, source: Source, classes: list[int]):
        new = np.full(source.num_classes, -1, np.int32)
        new[classes] = np.arange(len(classes), dtype=np.int32)
        labels = new[source.labels]
        self.source = source
        self.indices = np.flatnonzero(labels >= 0)
        self.labels = labels[self.indices]
        self.class_names = tuple(source.class_names[label] for label in classes)
        self.name = f"{source.name} ({len(classes)} of {source.num_classes} classes)"

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def identity(self) -> str:
        """Of the source, of which images these are and of their labels."""
        return combine([self.source.identity, of_numbers(self.indices, self.labels)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        record = self.source[int(self.indices[index])]
        return record._replace(label=int(self.labels[index]))


def keep_classes(source: Source, count: int) -> Source:
    """Keeps a fixed random choice of classes.

    The choice depends on the two numbers alone: training and evaluation, and runs with different
    seeds, have the same task; fewer classes are among the more.

    Args:
        source: all classes.
        count: classes to keep; 0 keeps all.

    Raises:
        ValueError: if the source has fewer classes.
    """
    if not 0 <= count <= source.num_classes:
        raise ValueError(
            f"{source.name} has {source.num_classes} classes: data.classes={count} cannot be kept."
        )
    if count in (0, source.num_classes):
        return source
    order = balanced_order(np.arange(source.num_classes), seed=0)
    return ClassSubset(source, sorted(order[:count].tolist()))


def fraction(source: Source, share: float, seed: int) -> Source:
    """A class-balanced random share of the images, at least one; see `sources.subset`."""
    return source if share == 1 else subset(source, max(1, round(share * len(source))), seed)
