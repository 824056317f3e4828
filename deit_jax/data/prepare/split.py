"""Dividing a folder of CLASS/IMAGE into a training and other splits, for good and by the seed."""

import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deit_jax.data.images.tree import image_tree
from deit_jax.files import write_json
from deit_jax.messages import some

TRAIN = "train"
SPLIT_NAMES = (TRAIN, "val", "valid", "validation", "test")
RECORD = "split.json"


@dataclass(frozen=True)
class Division:
    """Which images go where.

    Attributes:
        folder: that holds the class folders.
        splits: paths below it by split, sorted.
        seed: that decided.
        notes: sentences about what is in the folder and hardly meant to be.
    """

    folder: Path
    splits: Mapping[str, list[str]]
    seed: int
    notes: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images by class and split."""
        found: dict[str, dict[str, int]] = {}
        for split, paths in self.splits.items():
            for path in paths:
                row = found.setdefault(_class_of(path), dict.fromkeys(self.splits, 0))
                row[split] += 1
        return dict(sorted(found.items()))


def divide(
    folder: str | Path, shares: Mapping[str, float], seed: int, *, together: bool = False
) -> Division:
    """Choose a share of the images of every class for each split; the rest is for training.

    Copies of one file are never on both sides. The choice follows from the seed and the paths
    alone: more images later, or another machine, hardly change on which side one is.

    Args:
        folder: of CLASS/IMAGE, or CLASS/.../IMAGE.
        shares: of the images, by split, without that of "train"; each class gives at least one.
        seed: which images.
        together: keep what lies in one folder below a class on one side.

    Raises:
        FileNotFoundError: there are no images in class folders.
        ValueError: the folder is divided already, or a class is too small.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {str(root)!r}.")
    paths, notes = _images(root)
    copies = _copies(root, paths)
    splits: dict[str, list[str]] = {name: [] for name in (TRAIN, *shares)}
    groups: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        own = groups.setdefault(_class_of(path), {})
        alike = [path] if together else copies.get(path, [path])
        if len({*map(_class_of, alike)}) > 1:
            # Of two classes: on either side it would be wrong, for measuring more so.
            splits[TRAIN].append(path)
            continue
        own.setdefault(os.path.dirname(path) if together else alike[0], []).append(path)
    _refuse_small(root, groups, list(splits), together)
    for members in groups.values():
        _deal(members, shares, seed, splits)
    ordered = {name: sorted(found) for name, found in splits.items()}
    return Division(root, ordered, seed, (*notes, *_about_copies(copies, together)))


def write_division(
    division: Division, output: Path, *, copy: bool, progress: Callable[[int], None]
) -> None:
    """Make a folder of SPLIT/CLASS/IMAGE out of links to the images, or copies of them.

    Nothing is moved or changed; the folder appears when it is complete.

    Args:
        division: from `divide`.
        output: a new folder, or an empty one.
        copy: instead of links, which need the images to stay where they are.
        progress: is told of every image.

    Raises:
        FileExistsError: something is there.
        ValueError: the folder would be one of the classes.
        OSError: it cannot be written, or the system has no links.
    """
    check_output(division.folder, output)
    source = division.folder.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as made:
        whole = Path(made) / output.name
        for split, paths in division.splits.items():
            for path in paths:
                target = whole / split / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if copy:
                    shutil.copy2(source / path, target)
                else:
                    target.symlink_to(source / path)
                progress(1)
        write_json(
            whole / RECORD,
            {"of": str(source), "seed": division.seed, "images": division.counts()},
        )
        # Takes the place of an empty folder alone.
        whole.rename(output)


def check_output(folder: str | Path, output: Path) -> None:
    """Refuse a place where the divided folder cannot be.

    Raises:
        FileExistsError: something is there.
        ValueError: it would be one of the classes.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"{output} exists; choose another --output, or remove it.")
    if output.resolve().is_relative_to(Path(folder).expanduser().resolve()):
        raise ValueError(f"{output} lies inside {folder}; choose an --output outside of it.")


def _refuse_small(
    root: Path, groups: Mapping[str, Mapping[str, list[str]]], splits: list[str], together: bool
) -> None:
    small = [
        f"{title} ({len(found)})" for title, found in groups.items() if len(found) < len(splits)
    ]
    if small:
        what = "folders of images" if together else "different images"
        raise ValueError(
            f"{root}: every class needs at least {len(splits)} {what}, one for each of "
            f"{', '.join(splits)}; add some to {some(small)}, or take the class away."
        )


def _deal(
    groups: Mapping[str, list[str]],
    shares: Mapping[str, float],
    seed: int,
    splits: Mapping[str, list[str]],
) -> None:
    """Deal the groups of one class out; each split has at least one."""

    def rank(key: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{key}".encode(errors="surrogateescape")).digest()

    waiting = sorted(groups, key=rank)
    images, left = sum(map(len, groups.values())), len(shares)
    for name, share in shares.items():
        wanted = max(1, round(share * images))
        taken = 0
        # One is kept for each split that follows, and one for training.
        while taken < wanted and (not taken or len(waiting) > left):
            members = groups[waiting.pop(0)]
            splits[name].extend(members)
            taken += len(members)
        left -= 1
    for key in waiting:
        splits[TRAIN].extend(groups[key])


def _images(root: Path) -> tuple[list[str], list[str]]:
    """Return the paths of all images in class folders, and what else there is to say."""
    tree = image_tree(str(root))
    titles = {folder.split(os.sep, 1)[0] for folder in tree if folder}
    if TRAIN in titles:
        other = next((name for name in SPLIT_NAMES[1:] if name in titles), None)
        remedy = (
            f"train with --config.data.directory={root} --config.data.eval_split={other}"
            if other
            else f"divide {root / TRAIN}"
        )
        raise ValueError(f"{root} has a folder {TRAIN!r}, as of a divided data set; {remedy}.")
    paths = [os.path.join(folder, name) for folder, names in tree.items() for name in names]
    inside = [path for path in paths if os.sep in path]
    if not inside:
        directly = f"; images that lie in {root} itself are of no class" if paths else ""
        raise FileNotFoundError(
            f"{root} holds no images in class folders: expected {root}/CLASS/IMAGE{directly}."
        )
    notes = []
    if beside := len(paths) - len(inside):
        notes.append(f"{beside:,} images beside the class folders are left out.")
    if empty := sorted(titles - {_class_of(path) for path in inside}):
        notes.append(f"Folders without images are left out: {some(empty)}.")
    return inside, notes


def _copies(root: Path, paths: list[str]) -> dict[str, list[str]]:
    """Return, for each file that has the bytes of another, all with these; by path, sorted.

    Only files of one size are read.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        # A link to nothing is an image, which is then damaged.
        by_size[os.path.getsize(root / path) if os.path.exists(root / path) else -1].append(path)
    by_content: dict[bytes, list[str]] = defaultdict(list)
    for size, alike in by_size.items():
        for path in alike if size >= 0 and len(alike) > 1 else ():
            with open(root / path, "rb") as file:
                by_content[hashlib.file_digest(file, "sha256").digest()].append(path)
    found = [sorted(alike) for alike in by_content.values() if len(alike) > 1]
    return {path: alike for alike in found for path in alike}


def _about_copies(copies: Mapping[str, list[str]], together: bool) -> list[str]:
    sets = [alike for path, alike in copies.items() if path == alike[0]]
    across = [alike for alike in sets if len({*map(_class_of, alike)}) > 1]
    within = [alike for alike in sets if alike not in across]
    notes = []
    for found, where in (
        (within, "of others of their class" + ("" if together else " and stay with them")),
        (across, "of images of another class" + ("" if together else ": for training alone")),
    ):
        if found:
            count = sum(len(alike) - 1 for alike in found)
            notes.append(
                f"{count:,} images are copies {where}, such as {' and '.join(found[0][:2])}."
            )
    return notes


def _class_of(path: str) -> str:
    return path.split(os.sep, 1)[0]
