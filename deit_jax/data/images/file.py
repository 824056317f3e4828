"""Opening image files: which formats, which files, and how much of them."""

import contextlib
import importlib
import io
import os
import stat
import warnings
from typing import Final

from PIL import Image, UnidentifiedImageError

# Pillow knows some forty formats. PostScript it hands to another program, several have no decoder
# of its own, many nobody has photographs in: a file's name says nothing, so what may be tried is
# listed here. JPEG includes MPO, a JPEG with further ones behind it; PPM includes PGM and PBM.
IMAGE_FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF")
# As many pixels as Pillow decodes have 716 MB in the largest of its modes. What claims more than
# this is no image but damaged or a trap.
MOST_BYTES: Final = 1 << 30

# Were one of them missing, Pillow would import the modules of all formats to look for it. AVIF is
# there from Pillow 11.3 on.
for _name in ("Jpeg", "Png", "Gif", "Bmp", "Ppm", "Tiff", "WebP", "Avif"):
    with contextlib.suppress(ImportError):
        importlib.import_module(f"PIL.{_name}ImagePlugin")
_KNOWN: Final = tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)

# Pillow says these in two lines with its own path, of files that are sound: large scans, palettes
# whose transparency is dropped anyhow, and EXIF data that nothing is taken from but a tag that is
# reported. What it raises is not touched.
for _said in ("Image size .* exceeds limit", "Palette images with Transparency", "Corrupt EXIF"):
    warnings.filterwarnings("ignore", message=_said, module=r"PIL\.")


def open_image(data: bytes) -> Image.Image:
    """Open an encoded image of one of `IMAGE_FORMATS`; its pixels are decoded later, by Pillow.

    Nothing else in the house calls `Image.open` for the files of users.

    Raises:
        ValueError: if it is of none of the formats.
        Exception: whatever Pillow raises over damage, and over more than
            2 * `Image.MAX_IMAGE_PIXELS` (179 million) pixels.
    """
    try:
        return Image.open(io.BytesIO(data), formats=_KNOWN)
    except UnidentifiedImageError as error:
        raise ValueError(f"it is of none of the formats {', '.join(_KNOWN)}") from error


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Read a file that should hold an encoded image.

    Raises:
        ValueError: if it is a pipe or a device, which might never end, or too large for an image.
        OSError: if it cannot be read.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > MOST_BYTES:
            raise ValueError(f"it has {status.st_size:,} bytes, more than any image")
        return file.read()


def _open_at_once(path: str, flags: int) -> int:
    """Refuse what is no file: opening a pipe waits for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
