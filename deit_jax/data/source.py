"""Random-access collections of labelled images: what every source offers, and how to open one."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from deit_jax.data.draws import balanced_order
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
    def labels(self) -> Int32[np.ndarray, "images"]:
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


@runtime_checkable
class HasFingerprint(Protocol):
    """A source that reads everything to know its labels, and can be told from others without."""

    @property
    def fingerprint(self) -> str:
        """Differs between data sets of one name and size."""
        ...


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


class Subset:
    """Some images of another source, in the order of `indices`."""

    def __init__(self, source: Source, indices: Int64[np.ndarray, "images"]):
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
    def labels(self) -> Int32[np.ndarray, "images"]:
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
    def labels(self) -> Int32[np.ndarray, "images"]:
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
    """A class-balanced random subset.

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


def require_same_classes(train: Source, evaluation: Source) -> None:
    """Checks that a label means the same class in both.

    A folder with one class fewer would number all that follow differently, and accuracy would be
    nonsense without any other sign.

    Raises:
        ValueError: naming the first difference.
    """
    require_same_names(train.name, train.class_names, evaluation.name, evaluation.class_names)


def require_same_names(
    one: str, names: Sequence[str], other: str, other_names: Sequence[str]
) -> None:
    """Checks that classes have the same names in the same order.

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


def open_source(kind: str, split: str, directory: str = "") -> Source:
    """Opens a data set.

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
    # Each kind is imported when it is asked for: two of them need optional packages.
    if kind == "digits":
        from deit_jax.data.formats.digits import open_digits

        return open_digits(split)
    if kind in ("folder", "numbered_folder"):
        from deit_jax.data.formats.folder import FolderSource

        return FolderSource(directory, split, numeric_order=kind == "numbered_folder")
    if kind == "prepared":
        from deit_jax.data.formats.prepared import PreparedSource

        return PreparedSource(directory, split)
    if kind == "tfds":
        from deit_jax.data.formats.tfds import TfdsSource

        return TfdsSource(directory, split)
    kinds = "digits, folder, numbered_folder, prepared or tfds"
    raise ValueError(f"Unknown data source {kind!r}: use {kinds}.")
