"""Data sets whose labels stand in a file beside the images: Flowers, Cars, iNaturalist."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deit_jax.data.formats.folder import FolderSource
from deit_jax.data.formats.listed import Files, FolderFiles, ListedSource, open_files
from deit_jax.data.papers.matlab import numbers, read_matlab, table, texts
from deit_jax.data.source import Source
from deit_jax.files import read_json

Labelled = list[tuple[str, int]]


def by_list(files: Files, name: str, listed: Labelled, class_names: Sequence[str]) -> ListedSource:
    """Return the images of a list, wherever among the files they lie.

    Args:
        files: where the images are.
        name: of the source.
        listed: the end of each image's path, such as "cars_train/00001.jpg", and its label.
        class_names: one for each class.

    Raises:
        ValueError: if an image is missing or a label is no class.
    """
    number_of = _by_ends(files, [path for path, _ in listed], name)
    missing = [path for path, _ in listed if path not in number_of]
    if missing:
        raise ValueError(
            f"{name}: {len(missing):,} of {len(listed):,} listed images are missing, such as "
            f"{missing[0]}."
        )
    wrong = [path for path, label in listed if not 0 <= label < len(class_names)]
    if wrong:
        raise ValueError(f"{name}: {wrong[0]} has a label that is none of the classes.")
    chosen = [number_of[path] for path, _ in listed]
    return ListedSource(name, files, chosen, [label for _, label in listed], class_names)


def _by_ends(files: Files, ends: list[str], name: str) -> dict[str, int]:
    """For the ends of paths, the numbers of the files that have them."""
    wanted = set(ends)
    depths = {end.count("/") + 1 for end in wanted}
    number_of: dict[str, int] = {}
    for number, path in enumerate(files.names):
        parts = path.split("/")
        for end in ("/".join(parts[-depth:]) for depth in depths):
            if end in wanted and number_of.setdefault(end, number) != number:
                raise ValueError(f"{name}: there are several files {end}, so remove all but one.")
    return number_of


def open_flowers(path: Path) -> dict[str, Source]:
    """Open Oxford Flowers-102: imagelabels.mat, setid.mat and jpg/ or 102flowers.tar.

    Training takes the authors' training and validation images (2,040 in all, as in the paper,
    Table 6), evaluation their test images.

    Raises:
        FileNotFoundError, ValueError: if files are missing or do not fit together.
        ModuleNotFoundError: if SciPy is not installed.
    """
    file = path / "imagelabels.mat"
    labels = numbers(read_matlab(file), "labels", file)
    file = path / "setid.mat"
    train, validation, test = (
        numbers(read_matlab(file), name, file) for name in ("trnid", "valid", "tstid")
    )
    splits = {"train": np.concatenate([train, validation]), "test": test}
    files = _images(path, "102flowers.tar")
    names = [str(number) for number in range(1, 103)]
    sources: dict[str, Source] = {}
    for split, chosen in splits.items():
        if len(chosen) and not 1 <= chosen.min() <= chosen.max() <= len(labels):
            raise ValueError(f"{file} names an image that imagelabels.mat does not.")
        listed = [(f"image_{n:05}.jpg", int(labels[n - 1]) - 1) for n in np.sort(chosen)]
        sources[split] = by_list(files, f"flowers/{split}", listed, names)
    return sources


def open_cars(path: Path) -> dict[str, Source]:
    """Open Stanford Cars in any form in which it is about.

    Either the development kit (cars_meta.mat, cars_train_annos.mat and
    cars_test_annos_withlabels.mat, in `path` or in `path`/devkit) with cars_train/ and cars_test/;
    or the single cars_annos.mat with car_ims/; or train/ and test/ with a folder for each class.

    Raises:
        FileNotFoundError, ValueError: if files are missing or do not fit together.
        ModuleNotFoundError: if SciPy is not installed and is needed.
    """
    if (path / "cars_annos.mat").is_file():
        file = path / "cars_annos.mat"
        content = read_matlab(file)
        names = texts(content, "class_names", file)
        rows = table(content, "annotations", file, ("relative_im_path", "class", "test"))
        lists = {
            split: [
                (str(row["relative_im_path"]), int(row["class"]) - 1)
                for row in rows
                if int(row["test"]) == flag
            ]
            for split, flag in (("train", 0), ("test", 1))
        }
    elif kit := next((d for d in (path, path / "devkit") if (d / "cars_meta.mat").is_file()), None):
        file = kit / "cars_meta.mat"
        names = texts(read_matlab(file), "class_names", file)
        lists = {
            "train": _cars_list(kit / "cars_train_annos.mat", "cars_train"),
            "test": _cars_list(_cars_test(path, kit), "cars_test"),
        }
    else:
        return {split: FolderSource(str(path), split) for split in ("train", "test")}
    files = FolderFiles(path)
    return {
        split: by_list(files, f"cars/{split}", listed, names) for split, listed in lists.items()
    }


def _cars_test(path: Path, kit: Path) -> Path:
    name = "cars_test_annos_withlabels.mat"
    for place in (path / name, kit / name):
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"No {name} in {str(path)!r}: the kit's cars_test_annos.mat has no labels."
    )


def _cars_list(path: Path, folder: str) -> Labelled:
    rows = table(read_matlab(path), "annotations", path, ("fname", "class"))
    return [(f"{folder}/{row['fname']}", int(row["class"]) - 1) for row in rows]


def open_inaturalist(path: Path, year: int) -> dict[str, Source]:
    """Open iNaturalist 2018 or 2019: train{year}.json, val{year}.json and the images they name.

    Images lie below `path` or in train_val{year}.tar there. The competitions published no labels
    of their test images: "test" is their validation split, as in the paper. Classes are numbered
    in the order of the categories' ids.

    Raises:
        FileNotFoundError, ValueError: if files are missing or do not fit together.
    """
    files = _images(path, f"train_val{year}.tar")
    sources: dict[str, Source] = {}
    for split, stem in (("train", "train"), ("test", "val")):
        file = path / f"{stem}{year}.json"
        content = read_json(_existing(file))
        try:
            listed, names = _coco(content)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file} is no list of annotated images: {error!r}.") from error
        sources[split] = by_list(files, f"inat{year % 100}/{split}", listed, names)
    return sources


def _coco(content: Any) -> tuple[Labelled, list[str]]:
    """Paths with labels, and names of classes, of a file in the form of COCO's."""
    ids = sorted(category["id"] for category in content["categories"])
    label_of = {number: label for label, number in enumerate(ids)}
    title_of = {category["id"]: str(category["name"]) for category in content["categories"]}
    names = [title_of[number] for number in ids]
    if len(set(names)) < len(names):
        names = [str(number) for number in ids]
    path_of = {image["id"]: str(image["file_name"]) for image in content["images"]}
    listed = [
        (path_of[note["image_id"]], label_of[note["category_id"]])
        for note in content["annotations"]
    ]
    return sorted(listed), names


def _images(path: Path, archive: str) -> Files:
    """Return what lies in the archive in a folder, or loose in the folder."""
    return open_files(path / archive if (path / archive).is_file() else path)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"No file {str(path)!r}, which the data set consists of.")
    return path
