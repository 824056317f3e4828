"""ImageNet-1k as it is about: class folders, or the two tars of ILSVRC 2012; and ImageNet-V2."""

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from deit_jax.data.formats.archives import Archive, read_packed
from deit_jax.data.formats.folder import FolderSource
from deit_jax.data.formats.listed import (
    Files,
    ListedSource,
    by_class_folder,
    folder_of_classes,
    open_files,
)
from deit_jax.data.images.names import is_left_behind
from deit_jax.data.papers.matlab import read_matlab, table
from deit_jax.data.source import Source

TRAIN_TAR: Final = "ILSVRC2012_img_train.tar"
VAL_TAR: Final = "ILSVRC2012_img_val.tar"


def open_imagenet(path: Path, val_labels: str = "") -> dict[str, Source]:
    """Open both splits.

    Args:
        path: a folder that holds for each split the folder of its name with class folders in it,
            or the original tar; or an archive of the former. A folder val/ that holds all images
            directly counts like the tar.
        val_labels: for validation images without class folders, see `read_labels`.

    Raises:
        FileNotFoundError, ValueError: if files are missing or do not fit together.
    """
    if path.is_file():
        return _open_archive(Archive(path), val_labels)
    train: Source
    if (path / "train").is_dir():
        train = FolderSource(str(path), "train")
    elif (path / TRAIN_TAR).is_file():
        train = by_class_folder(Archive(path / TRAIN_TAR), "imagenet/train")
    else:
        raise FileNotFoundError(f"{str(path)!r} holds neither train/ nor {TRAIN_TAR}.")
    return {"train": train, "val": _open_validation(path, val_labels, train.class_names)}


def _open_archive(archive: Archive, val_labels: str) -> dict[str, Source]:
    train = by_class_folder(archive, "imagenet/train", "train")
    names = list(archive.names)
    root = folder_of_classes(names, "val", archive.path)
    val = [number for number, name in enumerate(names) if name.startswith(root)]
    if any("/" in names[number].removeprefix(root) for number in val):
        return {"train": train, "val": by_class_folder(archive, "imagenet/val", "val")}
    place = f"{archive.path}/{root}"
    return {"train": train, "val": _label(archive, val, place, val_labels, train.class_names)}


def _open_validation(path: Path, val_labels: str, class_names: Sequence[str]) -> Source:
    folder, tar = path / "val", path / VAL_TAR
    if folder.is_dir() and any(
        entry.is_dir() and not is_left_behind(entry.name) for entry in folder.iterdir()
    ):
        return FolderSource(str(path), "val")
    place = folder if folder.is_dir() else tar
    if not place.exists():
        raise FileNotFoundError(f"{str(path)!r} holds neither val/ nor {VAL_TAR}.")
    files = open_files(place)
    return _label(files, range(len(files)), str(place), val_labels, class_names)


def _label(
    files: Files, chosen: Iterable[int], place: str, val_labels: str, class_names: Sequence[str]
) -> ListedSource:
    """Return the chosen images in order of name, with the labels that a file gives them."""
    if not val_labels:
        raise ValueError(
            f"The images of {place} lie in no class folders: name the file of their labels by "
            "--val-labels."
        )
    stems = {number: PurePosixPath(files.names[number]).stem for number in chosen}
    order = sorted(stems, key=stems.__getitem__)
    labels = read_labels(val_labels, [stems[number] for number in order], class_names)
    return ListedSource("imagenet/val", files, order, labels, class_names)


def read_labels(path: str, stems: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Read the labels of images.

    Args:
        path: a text file. Either a line for each image in order of name: the name of its class
            (a WordNet id) or its number, counted from 0 in the order of class names. Or lines that
            begin with the image's file name, followed by that, separated by blanks or commas, in
            any order; further columns do not matter. So LOC_val_solution.csv of Kaggle will do,
            and val.txt of Caffe. Or ILSVRC2012_devkit_t12.tar.gz as it is.
        stems: the images' file names without ending, in order.
        class_names: in order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if an image has no label, or a label is no class.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"No file {path!r} with labels of validation images.")
    if tarfile.is_tarfile(file):
        return _numbers(_read_kit(file), path, class_names, len(stems))
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [row for line in lines if (row := line.replace(",", " ").split())]
    if rows and rows[0][0] == "ImageId":
        rows = rows[1:]
    if all(len(row) == 1 for row in rows):
        words = [row[0] for row in rows]
    else:
        word_of = {PurePosixPath(row[0]).stem: row[1] for row in rows if len(row) > 1}
        missing = [stem for stem in stems if stem not in word_of]
        if missing:
            raise ValueError(
                f"{path} has no label for {len(missing):,} of {len(stems):,} images, such as "
                f"{missing[0]}."
            )
        words = [word_of[stem] for stem in stems]
    return _numbers(words, path, class_names, len(stems))


def _read_kit(path: Path) -> list[str]:
    """Return the WordNet ids of the validation images, from the development kit.

    Its ground truth counts classes from 1 in an order that its meta.mat translates.
    """
    wanted = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
    content = read_packed(path, wanted)
    if len(content) < len(wanted):
        raise ValueError(f"{path} does not hold both {wanted[0]} and {wanted[1]}.")
    meta = read_matlab(path / wanted[0], io.BytesIO(content[wanted[0]]))
    rows = table(meta, "synsets", path, ("ILSVRC2012_ID", "WNID"))
    id_of = {str(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
    numbers = content[wanted[1]].decode("ascii", "replace").split()
    unknown = [number for number in numbers if number not in id_of]
    if unknown:
        raise ValueError(f"{path} has the label {unknown[0]!r}, which its {wanted[0]} lacks.")
    return [id_of[number] for number in numbers]


def _numbers(words: list[str], path: str, class_names: Sequence[str], count: int) -> list[int]:
    """Labels by number, from names or numbers of classes."""
    if len(words) != count:
        raise ValueError(f"{path} has {len(words):,} labels for {count:,} images.")
    number_of = {name: number for number, name in enumerate(class_names)}
    if set(words) <= number_of.keys():
        return [number_of[word] for word in words]
    numbers = {str(number): number for number in range(len(class_names))}
    wrong = [word for word in words if word not in numbers]
    if not wrong:
        return [numbers[word] for word in words]
    if wrong[0] == str(len(class_names)) and "0" not in words:
        raise ValueError(
            f"{path} counts classes from 1 in an order of its own, like the ground truth of "
            "ILSVRC's development kit: name ILSVRC2012_devkit_t12.tar.gz itself."
        )
    unknown = next(word for word in words if word not in number_of)
    raise ValueError(f"{path} has the label {unknown!r}, which is no class of the training images.")


def open_imagenet_v2(path: Path) -> dict[str, Source]:
    """Open one of the three sets of ImageNet-V2, whose folders are called 0 to 999.

    torchvision's ImageFolder reads them in the order 0, 1, 10, 100 and with that has nearly all
    labels wrong; here they are in the order of numbers.

    Args:
        path: the folder that holds them, such as imagenetv2-matched-frequency-format-val, or a tar.

    Raises:
        FileNotFoundError, ValueError: if it holds something else.
    """
    return {"val": by_class_folder(open_files(path), "imagenet_v2/val", numeric_order=True)}
