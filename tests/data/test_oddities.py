"""What is unusual about images, and what decodes all the same."""

import io

import numpy as np
import pytest
from PIL import Image

from deit_jax.data.decode import decode
from deit_jax.data.oddities import jpeg_end, oddities

PICTURE = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8).repeat(3, 0).repeat(3, 1)
)
TRANSPARENT = PICTURE.copy()
TRANSPARENT.putalpha(77)


def encoded(image, kind="JPEG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rotated(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(PICTURE, exif=exif)


PLAIN = encoded(PICTURE)
CASES = {
    "plain": (PLAIN, "a.JPEG", []),
    "progressive": (encoded(PICTURE, progressive=True), "a.jpg", []),
    "png": (encoded(PICTURE, "PNG"), "a.png", []),
    "no ending": (PLAIN, "a", []),
    "upright by exif": (rotated(1), "a.jpg", []),
    "png called jpeg": (encoded(PICTURE, "PNG"), "n02105855_2933.JPEG", ["PNG in a file called"]),
    "jpeg called png": (PLAIN, "a.png", ["JPEG in a file called .png"]),
    "cmyk": (encoded(PICTURE.convert("CMYK")), "a.jpeg", ["CMYK"]),
    "grey": (encoded(PICTURE.convert("L")), "a.jpeg", ["grey"]),
    "transparent": (encoded(TRANSPARENT, "PNG"), "a.png", ["transparent"]),
    "rotated": (rotated(6), "a.jpeg", ["rotated by its EXIF tag"]),
    "garbage behind": (PLAIN + b"\xff\xd9 \xff\xd8 rubbish \xff\xd9", "a.jpeg", ["bytes after"]),
    "a second image behind": (PLAIN + PLAIN, "a.jpeg", ["bytes after"]),
    "several": (
        encoded(PICTURE.convert("CMYK"), progressive=True) + b"\0",
        "a.bmp",
        ["JPEG in a file called .bmp", "CMYK", "bytes after"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_oddities_are_told(name):
    data, file, expected = CASES[name]
    decode(data)
    found = oddities(data, file)
    assert len(found) == len(expected)
    assert all(f.startswith(e) for f, e in zip(found, expected, strict=True)), found


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "optimize": True}])
def test_the_end_of_a_jpeg_is_found(options):
    # Restart markers and many scans lie before it; a thumbnail in the header has an end of its own.
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9".encode("latin-1").decode("latin-1") * 50
    for extra in ({}, {"restart_marker_blocks": 2}, {"exif": exif}):
        data = encoded(PICTURE, **options, **extra)
        assert jpeg_end(data) == len(data)
        assert jpeg_end(data + b"\xff\xd9more") == len(data)
        # Without its end it is damaged, which is for the decoder to say.
        assert jpeg_end(data[:-2]) == len(data) - 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_data_stops_nobody():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "a maker", {0x9003: "2012:12:23 20:12:05"}
    data = encoded(PICTURE, exif=exif)
    start, sound, random = data.index(b"Exif"), 0, np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(data)
        for place in random.integers(start, start + 120, 4):
            spoilt[place] = random.integers(256)
        try:
            decode(bytes(spoilt))
        except ValueError:
            continue
        sound += 1
        oddities(bytes(spoilt), "a.jpeg")
    assert sound > 100


def test_a_truncated_file_is_no_oddity_but_damaged():
    with pytest.raises(ValueError, match="truncated"):
        decode(PLAIN[: len(PLAIN) // 2])
