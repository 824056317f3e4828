"""What is unusual about an image that can be decoded all the same."""

import logging
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image

from deit_jax.data.images.file import open_image

_LOG = logging.getLogger("deit_jax")
_EXIF_ORIENTATION: Final = 0x0112
_NAMES: Final = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "AVIF": (".avif",),
}
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
# Within a scan a marker is FF and neither 00, which stuffs a byte FF, nor a restart D0 to D7.
_MARKER_IN_SCAN: Final = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")


class Oddity(NamedTuple):
    """A record that a stream has read, though hardly as it is meant."""

    number: int
    name: str
    what: str


class OddityCount:
    """The odd records of one stream, each counted once however often it is drawn.

    Args:
        source_name: what the log calls the data set.
        images: in the data set.
    """

    def __init__(self, source_name: str, images: int):
        self._source_name = source_name
        self._images = images
        self._seen: dict[str, Bool[np.ndarray, images]] = {}
        self._counts: dict[str, int] = {}

    def add(self, oddities: Iterable[Oddity]) -> None:
        """Note records that a batch met; the log tells of the 1st, 10th, 100th ... of a kind."""
        for number, name, what in oddities:
            seen = self._seen.setdefault(what, np.zeros(self._images, np.bool_))
            if seen[number]:
                continue
            seen[number] = True
            count = self._counts[what] = self._counts.get(what, 0) + 1
            if count == 10 ** (len(str(count)) - 1):
                _LOG.warning(
                    "%s: %d of %d images so far, such as %s: %s; convert them to 8 bits.",
                    *(self._source_name, count, self._images, name, what),
                )


def oddities(data: bytes, name: str) -> list[str]:
    """Return what a reader of the data set may want to know of a sound image; mostly nothing.

    ImageNet has one PNG called .JPEG and 22 CMYK files, for instance. All are read as torchvision
    reads them.

    Args:
        data: an encoded image that Pillow can open.
        name: of the file, for what its ending promises.
    """
    found = []
    with open_image(data) as image:
        # A JPEG with further pictures behind it, as some cameras write.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        mode = image.mode
        orientation = _orientation(image)
    if orientation is None:
        found.append("EXIF data that cannot be read")
    ending = PurePath(name).suffix.lower()
    expected = next((k for k, endings in _NAMES.items() if ending in endings), kind)
    if kind != expected:
        found.append(f"{kind} in a file called {ending}")
    if mode == "CMYK":
        found.append("CMYK, converted to RGB")
    elif loss := lost_values(mode):
        found.append(loss)
    elif mode in ("L", "LA", "1"):
        found.append("grey, repeated to RGB")
    elif mode in ("RGBA", "PA") or (mode == "P" and kind == "PNG" and b"tRNS" in data):
        found.append("transparent, which is dropped")
    if turned := _turned(orientation):
        found.append(turned)
    if kind == "JPEG" and jpeg_end(data) < len(data):
        found.append("bytes after its end, which are ignored")
    return found


def rotation(data: bytes) -> str:
    """Return what becomes of an image that people see turned; "" of others."""
    with open_image(data) as image:
        return _turned(_orientation(image))


def _orientation(image: Image.Image) -> int | None:
    """Return what EXIF data say of it, 1 where they say nothing; None if they cannot be read."""
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    # Pillow has no one exception for what it cannot parse.
    except Exception:
        return None


def _turned(orientation: int | None) -> str:
    upright = orientation in (None, 0, 1)
    return "" if upright else "rotated by its EXIF tag, which is ignored as torchvision does"


def lost_values(mode: str) -> str:
    """Return what becomes of values that do not fit into 8 bits; "" for images of 8 bits.

    Pillow cuts them off where others would divide them, and so does torchvision's loader: most
    16-bit images become white all over, floating-point ones of 0 to 1 black.

    Args:
        mode: Pillow's, of the image as its file has it.
    """
    if mode == "F":
        return (
            "floating-point grey (F): values above 255 become white and those below 1 black, as in "
            "Pillow and torchvision"
        )
    if mode.startswith("I"):
        bits = "16-bit" if mode.startswith("I;16") else "over 8-bit"
        return f"{bits} grey ({mode}): values above 255 become white, as in Pillow and torchvision"
    return ""


def jpeg_end(data: bytes) -> int:
    """Position behind the end marker of the first image; the length if there is no such marker."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker == _END_OF_IMAGE:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            found = _MARKER_IN_SCAN.search(data, position)
            if found is None:
                return len(data)
            position = found.start()
    if data[position : position + 2] == bytes((0xFF, _END_OF_IMAGE)):
        return position + 2
    return len(data)
