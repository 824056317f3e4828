"""Records as a prepared data set has them: seen to be sound, and maybe resized."""

import io
from typing import Final, NamedTuple

from PIL import Image

from deit_jax.data.images.oddities import oddities
from deit_jax.data.images.resize import Pixels, resize
from deit_jax.data.source import Record, Source
from deit_jax.data.stream.read_or_replace import DamagedRecordError, read_record

# Pixels of a side, in libjpeg.
_LARGEST_JPEG: Final = 65_500


class Resize(NamedTuple):
    """One-time resizing: shorter side in pixels (0: keep the files as they are), JPEG quality."""

    short_side: int = 0
    quality: int = 90


def checked_record(source: Source, index: int, resizing: Resize) -> tuple[Record, list[str]]:
    """Read a record, decode its image and encode it anew where that is asked for.

    Returns:
        (the record to write, what is unusual about its image). The latter is told where images are
        resized, after which nobody can see it any more.

    Raises:
        DamagedRecordError: if it cannot be read, decoded or resized.
    """
    record, pixels, _ = read_record(source, index)
    if not isinstance(record.image, bytes):
        return Record(_encoded(pixels, record.name, resizing), record.label, record.name), []
    unusual = oddities(record.image, record.name) if resizing.short_side else []
    if not _shrinks(pixels, resizing):
        return record, unusual
    return Record(_encoded(pixels, record.name, resizing), record.label, record.name), unusual


def _shrinks(pixels: Pixels, resizing: Resize) -> bool:
    return 0 < resizing.short_side < min(pixels.shape[:2])


def _encoded(pixels: Pixels, name: str, resizing: Resize) -> bytes:
    """Return a JPEG of shrunk pixels; a PNG of others, and of such as JPEG has no size for."""
    file = io.BytesIO()
    try:
        if not _shrinks(pixels, resizing):
            Image.fromarray(pixels).save(file, "PNG")
            return file.getvalue()
        height, width = pixels.shape[:2]
        scale = resizing.short_side / min(height, width)
        pixels = resize(pixels, (round(height * scale), round(width * scale)))
        kind = "JPEG" if max(pixels.shape) <= _LARGEST_JPEG else "PNG"
        Image.fromarray(pixels).save(file, kind, quality=resizing.quality)
        return file.getvalue()
    except MemoryError as error:
        raise DamagedRecordError(name, "there is not enough memory to resize it") from error
