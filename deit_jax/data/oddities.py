"""What is unusual about an image that can be decoded all the same."""

import io
import re
from pathlib import PurePath
from typing import Final

from PIL import Image

_EXIF_ORIENTATION: Final = 0x0112
_NAMES: Final = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
}
_END_OF_IMAGE: Final = 0xD9
_START_OF_SCAN: Final = 0xDA
# Within a scan a marker is FF and neither 00, which stuffs a byte FF, nor a restart D0 to D7.
_MARKER_IN_SCAN: Final = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")


def oddities(data: bytes, name: str) -> list[str]:
    """What a reader of the data set may want to know of a sound image; mostly nothing.

    ImageNet has one PNG called .JPEG and 22 CMYK files, for instance. All are read as torchvision
    reads them.

    Args:
        data: an encoded image that Pillow can open.
        name: of the file, for what its ending promises.
    """
    found = []
    with Image.open(io.BytesIO(data)) as image:
        # A JPEG with further pictures behind it, as some cameras write.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        mode = image.mode
        try:
            turned = image.getexif().get(_EXIF_ORIENTATION, 1)
        # Pillow has no one exception for what it cannot parse.
        except Exception:
            turned = 1
            found.append("EXIF data that cannot be read")
    ending = PurePath(name).suffix.lower()
    expected = next((k for k, endings in _NAMES.items() if ending in endings), kind)
    if kind != expected:
        found.append(f"{kind} in a file called {ending}")
    if mode == "CMYK":
        found.append("CMYK, converted to RGB")
    elif mode in ("L", "LA", "1") or mode.startswith("I"):
        found.append("grey, repeated to RGB")
    elif mode in ("RGBA", "PA") or (mode == "P" and kind == "PNG" and b"tRNS" in data):
        found.append("transparent, which is dropped")
    if turned not in (0, 1):
        found.append("rotated by its EXIF tag, which is ignored as torchvision does")
    if kind == "JPEG" and jpeg_end(data) < len(data):
        found.append("bytes after its end, which are ignored")
    return found


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
