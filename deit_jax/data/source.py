"""Random-access collections of labelled images: what every source offers."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int32, UInt8

from deit_jax.data.identity import combine, of_numbers


class Record(NamedTuple):
    """One labelled image: encoded bytes or decoded pixels, and a name to speak of it in errors."""

    image: bytes | UInt8[np.ndarray, "height width 3"]
    label: int
    name: str


class Source(Protocol):
    """A random-access, picklable collection of labelled images.

    Pickling happens once for each reader process, so a source holds paths or small arrays and
    opens files lazily.
    """

    @property
    def name(self) -> str:
        """What reports and errors call this source."""
        ...

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each class."""
        ...

    @property
    def labels(self) -> Int32[np.ndarray, " images"]:
        """The label of every image, without decoding any."""
        ...

    @property
    def identity(self) -> str:
        """Differs between sources whose records differ in number, order, name, size or label.

        As far as that is known without reading images; see `deit_jax.data.identity`.
        """
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class ArraySource:
    """Decoded images of one size held in memory; batches of them are gathered in one go."""

    def __init__(
        self,
        name: str,
        images: UInt8[np.ndarray, "images height width 3"],
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str],
    ):
        self.name = name
        self.images = images
        self.labels = np.asarray(labels, np.int32)
        self.class_names = tuple(class_names)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(
                f"{name}: images must be uint8 [images, height, width, 3], "
                f"got {images.dtype} {list(images.shape)}."
            )
        if len(images) != len(self.labels):
            raise ValueError(f"{name}: {len(images)} images but {len(self.labels)} labels.")

    @property
    def num_classes(self) -> int:
        """Labels are 0 .. num_classes - 1."""
        return len(self.class_names)

    @property
    def identity(self) -> str:
        """Of images and labels."""
        shape = ",".join(map(str, self.images.shape))
        return combine(
            [shape, np.ascontiguousarray(self.images).tobytes(), of_numbers(self.labels)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        return Record(self.images[index], int(self.labels[index]), f"{self.name}[{index}]")


def require_same_classes(train: Source, evaluation: Source) -> None:
    """Check that a label means the same class in both.

    A folder with one class fewer would number all that follow differently, and accuracy would be
    nonsense without any other sign.

    Raises:
        ValueError: naming the first difference.
    """
    require_same_names(train.name, train.class_names, evaluation.name, evaluation.class_names)


def require_same_names(
    one: str, names: Sequence[str], other: str, other_names: Sequence[str]
) -> None:
    """Check that classes have the same names in the same order.

    Args:
        one: what messages call the first owner of classes.
        names: of its classes.
        other: likewise.
        other_names: likewise.

    Raises:
        ValueError: naming the first difference.
    """
    if tuple(names) == tuple(other_names):
        return
    missing = sorted(set(names) ^ set(other_names))
    raise ValueError(
        f"{one} has {len(names)} classes and {other} has {len(other_names)}, not the same ones in "
        "the same order" + (f": {missing[0]!r} is in only one of them." if missing else ".")
    )
