"""Sources out of other sources: some of the images, some of the classes, several joined."""

import bisect
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from deit_jax.data.draws import balanced_order
from deit_jax.data.identity import combine, of_numbers
from deit_jax.data.source import ArraySource, Record, Source, require_same_classes


class Subset:
    """Some images of another source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Int64[np.ndarray, " images"]):
        self.source = source
        self.indices = indices
        self.name = f"{source.name} ({len(indices)} of {len(source)} images)"

    @property
    def num_classes(self) -> int:
        """Classes of the whole source, whether or not each of them is represented."""
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class."""
        return self.source.class_names

    @property
    def labels(self) -> Int32[np.ndarray, " images"]:
        """The label of every image of the subset."""
        return self.source.labels[self.indices]

    @property
    def identity(self) -> str:
        """Of the source and of which images these are."""
        return combine([self.source.identity, of_numbers(self.indices)])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.indices[index])]


class Joined:
    """Sources with the same classes, one behind the other.

    Raises:
        ValueError: if the classes differ.
    """

    def __init__(self, name: str, sources: Sequence[Source]):
        for source in sources[1:]:
            require_same_classes(sources[0], source)
        self.name = name
        self.sources = tuple(sources)
        self.class_names = sources[0].class_names
        self._ends = np.cumsum([len(source) for source in sources]).tolist()

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def labels(self) -> Int32[np.ndarray, " images"]:
        """The label of every image."""
        return np.concatenate([source.labels for source in self.sources])

    @property
    def identity(self) -> str:
        """Of all sources in their order."""
        return combine(source.identity for source in self.sources)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        part = bisect.bisect_right(self._ends, index)
        return self.sources[part][index - (self._ends[part - 1] if part else 0)]


def subset(source: Source, size: int, seed: int) -> Source:
    """Return a class-balanced random subset.

    Every class gets `size // num_classes` images and some get one more; a class that has too few
    gives all it has and the others fill up. With one seed a smaller subset lies inside a larger.

    Args:
        source: where to take images from.
        size: images to take; 0 takes everything.
        seed: which images.

    Raises:
        ValueError: if the source has fewer than `size` images.
    """
    if not 0 <= size <= len(source):
        raise ValueError(f"{source.name} has {len(source)} images: cannot take {size} of them.")
    if size in (0, len(source)):
        return source
    indices = np.sort(balanced_order(source.labels, seed)[:size])
    if isinstance(source, ArraySource):
        name = f"{source.name} ({size} of {len(source)} images)"
        return ArraySource(name, source.images[indices], source.labels[indices], source.class_names)
    return Subset(source, indices)


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
    """Keep a fixed random choice of classes.

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
    """Return a class-balanced random share of the images, at least one; see `subset`."""
    return source if share == 1 else subset(source, max(1, round(share * len(source))), seed)
