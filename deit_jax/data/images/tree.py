"""The images in a folder and below it: regular files only, each folder once."""

import heapq
import os
from typing import Final, NamedTuple

from deit_jax.data.images.names import (
    DROPPING,
    OTHER_ENDING,
    LeftOut,
    has_image_ending,
    has_other_ending,
    is_left_behind,
)
from deit_jax.data.open_file_limit import check_open_files

_IRREGULAR: Final = "pipes and devices"
_AGAIN: Final = "links to folders that are read elsewhere or hold this one"


class _Listing(NamedTuple):
    """What lies in one folder: names of image files, of folders, and of links to folders."""

    images: list[str]
    folders: list[str]
    links: list[str]


def image_tree(root: str) -> dict[str, list[str]]:
    """Find the images below a folder; a warning says what was left out.

    Links are followed, but a folder that can be reached in several ways is read once: as itself or,
    if there are only links to it, by the one nearest to the root. So no link leads in a circle or
    makes more images out of the same ones. A link to nothing counts as an image, which is then
    damaged: it may lead to storage that is not there at the moment.

    Args:
        root: the folder.

    Returns:
        By folder, relative to the root ("" for itself), the names of image files, both sorted;
        folders without images are among them.

    Raises:
        OSError: if a folder cannot be read; one sentence that names it.
    """
    left_out = LeftOut()
    seen = _above(root)
    found: dict[str, list[str]] = {}
    waiting = [""]
    links: list[tuple[int, str]] = []
    while waiting or links:
        folder = waiting.pop() if waiting else heapq.heappop(links)[1]
        path = os.path.join(root, folder)
        identity = _identity(path)
        if folder and identity in seen:
            left_out.add(_AGAIN, folder)
            continue
        seen.add(identity)
        listing = _list(path, folder, left_out)
        found[folder] = sorted(listing.images)
        waiting += [os.path.join(folder, name) for name in listing.folders]
        for name in listing.links:
            link = os.path.join(folder, name)
            heapq.heappush(links, (link.count(os.sep), link))
    left_out.say(root)
    return dict(sorted(found.items()))


def _list(path: str, folder: str, left_out: LeftOut) -> _Listing:
    found = _Listing([], [], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                # Nearly all are files, of which there may be millions.
                if not entry.is_file(follow_symlinks=False):
                    _sort_in(entry, os.path.join(folder, entry.name), found, left_out)
                elif not has_image_ending(entry.name):
                    if has_other_ending(entry.name):
                        left_out.add(OTHER_ENDING, os.path.join(folder, entry.name))
                elif is_left_behind(entry.name):
                    left_out.add(DROPPING, os.path.join(folder, entry.name))
                else:
                    found.images.append(entry.name)
    except OSError as error:
        raise _unreadable(path, error) from error
    return found


def _sort_in(entry: os.DirEntry[str], place: str, found: _Listing, left_out: LeftOut) -> None:
    """Deal with a folder, a link, a pipe or a device."""
    try:
        is_folder, is_irregular = entry.is_dir(), os.path.exists(entry) and not entry.is_file()
    except OSError:
        # A link in a circle, or to where one may not look.
        is_folder = is_irregular = False
    is_image = has_image_ending(entry.name)
    if is_left_behind(entry.name):
        if is_folder or is_image:
            left_out.add(DROPPING, place)
    elif is_folder:
        (found.links if entry.is_symlink() else found.folders).append(entry.name)
    elif is_image and is_irregular:
        left_out.add(_IRREGULAR, place)
    elif is_image:
        found.images.append(entry.name)


def _above(root: str) -> set[tuple[int, int]]:
    """Return the folders that hold the root, by its name and in truth."""
    above: set[tuple[int, int]] = set()
    for path in (os.path.abspath(root), os.path.realpath(root)):
        while (parent := os.path.dirname(path)) != path:
            path = parent
            above.add(_identity(path))
    return above


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return status.st_dev, status.st_ino


def _unreadable(path: str, error: OSError) -> OSError:
    check_open_files(error)
    return type(error)(
        f"Folder {path!r} cannot be read ({error.strerror}): change its rights or remove it."
    )
