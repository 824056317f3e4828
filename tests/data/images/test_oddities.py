"""What is unusual about images, and what decodes all the same."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import pil_loader

from deit_jax.data.images.decode import decode, decode_and_tell
from deit_jax.data.images.oddities import jpeg_end, lost_values, oddities
from deit_jax.data.open import open_source
from deit_jax.data.stream.loader import eval_batches, train_batches
from tests.inputs import eval_input, train_input

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
W16 = "16-bit grey (I;16): values above 255 become white"
BIG_ENDIAN = Image.frombytes("I;16B", (9, 9), bytes(range(162)))
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
    "16 bits": (encoded(Image.fromarray(np.full((9, 9), 300, np.uint16)), "PNG"), "a.png", [W16]),
    "16 bits, big-endian": (encoded(BIG_ENDIAN, "TIFF"), "a.tif", ["16-bit grey (I;16B)"]),
    "32 bits": (encoded(Image.new("I", (9, 9)), "TIFF"), "a.tif", ["over 8-bit grey (I)"]),
    "floating point": (
        encoded(Image.new("F", (9, 9)), "TIFF"),
        "a.tif",
        ["floating-point grey (F)"],
    ),
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


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F", "L", "RGB", "1", "P", "CMYK"])
def test_what_is_said_of_values_is_what_pillow_and_torchvision_do(tmp_path, mode):
    values = np.array([[0, 1, 254, 255, 256, 1000, 65535]])
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}.get(mode)
    if kind is None:
        assert lost_values(mode) == ""
        return
    if mode == "F":
        values = np.array([[0.0, 0.5, 0.99, 1.0, 254.9, 255.0, 1e9]])
    file = tmp_path / "a.tif"
    Image.frombytes(mode, (7, 1), values.astype(kind).tobytes()).save(file)
    pixels, loss = decode_and_tell(file.read_bytes())
    np.testing.assert_array_equal(pixels, np.asarray(pil_loader(str(file))))
    np.testing.assert_array_equal(pixels[0, :, 1], np.clip(values[0], 0, 255).astype(np.uint8))
    assert loss == lost_values(mode)
    assert ("above 255 become white" in loss) and ("below 1 black" in loss) == (mode == "F")


def test_a_stream_tells_of_odd_images_and_counts_each_once(tmp_path, caplog):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for number in range(15):
        kind = np.uint8 if number % 5 == 4 else np.uint16
        image = Image.fromarray(np.full((9, 9), 200 + number, kind))
        image.save(tmp_path / "train" / "a" / f"{number:02}.png")
    source = open_source("folder", "train", str(tmp_path))
    train = train_input(image_size=(8, 8), batch_size=5, threads=1)
    evaluation = eval_input(image_size=(8, 8), batch_size=5, threads=1)
    for batches in (train_batches(source, train, num_steps=9), eval_batches(source, evaluation)):
        caplog.clear()
        with batches:
            list(batches)
        assert [record.args[1] for record in caplog.records] == [1, 10]
        assert "10 of 15 images so far" in caplog.text and f"{W16}, as in Pillow" in caplog.text


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
