"""The data sets of the paper by name: their sizes, and how each is opened."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from deit_jax.data.papers.annotated import open_cars, open_flowers, open_inaturalist
from deit_jax.data.papers.cifar import open_cifar
from deit_jax.data.papers.imagenet import open_imagenet, open_imagenet_v2
from deit_jax.data.source import Source


class DataSet(NamedTuple):
    """What is known of a data set.

    Attributes:
        title: as the paper calls it.
        classes: how many.
        images: of each split.
        tfds: of each split, the splits it has at TensorFlow Datasets.
        open: opens all splits from what its authors publish, given the path and the file of
            validation labels, which only ImageNet may need.
    """

    title: str
    classes: int
    images: Mapping[str, int]
    tfds: Mapping[str, tuple[str, ...]]
    open: Callable[[Path, str], dict[str, Source]]


_TRAIN_TEST: Final = {"train": ("train",), "test": ("test",)}
# Paper, Table 6, and section 6.1 for ImageNet; V2 has 10 images of each class in each of its sets.
DATASETS: Final[Mapping[str, DataSet]] = {
    "imagenet": DataSet(
        "ImageNet",
        1000,
        {"train": 1_281_167, "val": 50_000},
        {"train": ("train",), "val": ("validation",)},
        open_imagenet,
    ),
    "imagenet_v2": DataSet(
        "ImageNet-V2",
        1000,
        {"val": 10_000},
        {"val": ("test",)},
        lambda path, _: open_imagenet_v2(path),
    ),
    "cifar10": DataSet(
        "CIFAR-10",
        10,
        {"train": 50_000, "test": 10_000},
        _TRAIN_TEST,
        lambda path, _: open_cifar(path, 10),
    ),
    "cifar100": DataSet(
        "CIFAR-100",
        100,
        {"train": 50_000, "test": 10_000},
        _TRAIN_TEST,
        lambda path, _: open_cifar(path, 100),
    ),
    "flowers": DataSet(
        "Oxford Flowers-102",
        102,
        {"train": 2_040, "test": 6_149},
        {"train": ("train", "validation"), "test": ("test",)},
        lambda path, _: open_flowers(path),
    ),
    "cars": DataSet(
        "Stanford Cars",
        196,
        {"train": 8_144, "test": 8_041},
        _TRAIN_TEST,
        lambda path, _: open_cars(path),
    ),
    "inat18": DataSet(
        "iNaturalist 2018",
        8_142,
        {"train": 437_513, "test": 24_426},
        {"train": ("train",), "test": ("validation",)},
        lambda path, _: open_inaturalist(path, 2018),
    ),
    "inat19": DataSet(
        "iNaturalist 2019",
        1_010,
        {"train": 265_240, "test": 3_003},
        {"train": ("train",), "test": ("validation",)},
        lambda path, _: open_inaturalist(path, 2019),
    ),
}


def missing_from(name: str, sources: Mapping[str, Source]) -> list[str]:
    """Return what the sources lack of the data set called `name`, one phrase for each split."""
    expected = DATASETS[name]
    found = []
    for split, source in sources.items():
        if source.num_classes != expected.classes:
            found.append(
                f"{split} has {source.num_classes:,} classes instead of {expected.classes:,}"
            )
        if len(source) != expected.images[split]:
            found.append(
                f"{split} has {len(source):,} images instead of {expected.images[split]:,}"
            )
    return found
