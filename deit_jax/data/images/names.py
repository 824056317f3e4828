"""Which names are images: one rule for folders, archives and every command."""

import logging
import os
from typing import Final

_LOG = logging.getLogger("deit_jax")

# torchvision.datasets.folder.IMG_EXTENSIONS, matched without regard to case.
EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
OTHER_ENDING: Final = "images whose endings are not read (rename or convert them)"
DROPPING: Final = "what systems leave behind"
# Images as well, which torchvision's ImageFolder leaves out without a word.
_OTHER_EXTENSIONS: Final = (".gif", ".avif", ".jfif", ".jpe", ".heic", ".heif", ".jp2", ".jxl")
# What macOS, Windows, Linux, network storage and Jupyter put beside people's files, in lower case.
_LEFT_BEHIND: Final = frozenset(
    (
        *(".ds_store", "__macosx", ".appledouble", ".spotlight-v100", ".trashes", ".fseventsd"),
        *(".temporaryitems", ".documentrevisions-v100", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("$recycle.bin", "system volume information", ".directory", ".thumbnails", "lost+found"),
        *("@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot"),
        ".ipynb_checkpoints",
    )
)
# Halves of files that macOS splits in two, deleted files, and files deleted while they were open.
_BEGINNINGS: Final = ("._", ".trash-", ".nfs")


def is_left_behind(name: str) -> bool:
    """Return whether systems, not people, call files so: they are never images or classes.

    A resource fork of macOS, `._cat.jpeg`, is called like an image and is none; Synology's
    `@eaDir` and Jupyter's `.ipynb_checkpoints` hold copies of images.
    """
    name = name.lower()
    return name in _LEFT_BEHIND or name.startswith(_BEGINNINGS)


def has_image_ending(name: str) -> bool:
    """Return whether a file is called as images are."""
    return name.lower().endswith(EXTENSIONS)


def has_other_ending(name: str) -> bool:
    """Return whether a file is called as images are that no reader takes."""
    return name.lower().endswith(_OTHER_EXTENSIONS) and not is_left_behind(name)


class LeftOut:
    """What a reader leaves out although it looks like images: counted, and said once."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Note a file or folder.

        Args:
            reason: what such things are, in the plural.
            name: the first of a reason is named.
        """
        count, example = self._found.get(reason, (0, name))
        self._found[reason] = count + 1, example

    def say(self, where: str | os.PathLike[str]) -> None:
        """Log one warning, if there is anything to say."""
        if self._found:
            listed = "; ".join(
                f"{reason} ({count:,}, such as {example!r})"
                for reason, (count, example) in self._found.items()
            )
            _LOG.warning("%s: left out: %s.", where, listed)
