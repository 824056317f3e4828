"""Encoded bytes to RGB pixels, always as Pillow decodes them."""

import math
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deit_jax.data.images.file import open_image
from deit_jax.data.images.oddities import lost_values

try:
    import simplejpeg

    _simplejpeg: Any = simplejpeg
except ModuleNotFoundError:
    _simplejpeg = None

_JPEG_START = b"\xff\xd8\xff"


def decode(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Decode an image file of one of `IMAGE_FORMATS`.

    As torchvision's loader: the first frame, converted to RGB (transparency dropped, grey
    repeated), not rotated by its EXIF tag. JPEG goes through simplejpeg where that is installed
    (the extra `deit_jax[fast]`), which yields the same bits in two thirds of the time.

    Raises:
        ValueError: if the bytes are no complete image, or one too large to be held.
    """
    return decode_and_tell(data)[0]


def decode_and_tell(data: bytes) -> tuple[UInt8[np.ndarray, "height width 3"], str]:
    """Decode an image file as `decode`, and tell what became of values that 8 bits do not hold.

    Returns:
        (pixels, `oddities.lost_values` of the file).

    Raises:
        ValueError: as `decode`.
    """
    try:
        pixels = _decode_jpeg(data) if _simplejpeg is not None else None
        return _decode_pillow(data) if pixels is None else (pixels, "")
    except MemoryError as error:
        raise ValueError("cannot be decoded as an image: there is not enough memory") from error


def _decode_jpeg(data: bytes) -> UInt8[np.ndarray, "height width 3"] | None:
    """Fast path for sound grey and YCbCr JPEG; None for anything else.

    CMYK is left to Pillow, whose conversion differs. So is whatever simplejpeg finds fault with
    and what Pillow finds too large: which files are accepted must not depend on what is installed.
    """
    if not data.startswith(_JPEG_START):
        return None
    try:
        height, width, colour_space, _ = _simplejpeg.decode_jpeg_header(data)
        if colour_space not in ("YCbCr", "Gray"):
            return None
        if height * width > (Image.MAX_IMAGE_PIXELS or math.inf):
            return None
        return _simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return None


def _decode_pillow(data: bytes) -> tuple[UInt8[np.ndarray, "height width 3"], str]:
    try:
        with open_image(data) as image:
            return np.asarray(image.convert("RGB")), lost_values(image.mode)
    except MemoryError:
        raise
    # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and others.
    except Exception as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"cannot be decoded as an image: {reason}") from error
