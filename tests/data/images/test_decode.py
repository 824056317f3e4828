"""Decoding against torchvision's own loader, with and without the fast decoder."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import pil_loader

from deit_jax.data.images import decode as module
from deit_jax.data.images.decode import decode


def photograph(height=123, width=97):
    """Smooth structure and noise, so that chroma subsampling and ringing matter."""
    y, x = np.mgrid[:height, :width] / 20.0
    waves = np.stack([np.sin(x + y), np.cos(2 * x - y), np.sin(3 * y)], -1)
    noise = np.random.default_rng(0).normal(0, 12, waves.shape)
    return Image.fromarray((127 + 100 * waves + noise).clip(0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_exif_rotation(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


PHOTOGRAPH = photograph()
TRANSPARENT = PHOTOGRAPH.copy()
TRANSPARENT.putalpha(77)
FILES = {
    "jpeg 4:2:0": encoded(PHOTOGRAPH, "JPEG", quality=85, subsampling="4:2:0"),
    "jpeg 4:2:2": encoded(PHOTOGRAPH, "JPEG", quality=85, subsampling="4:2:2"),
    "jpeg 4:4:4": encoded(PHOTOGRAPH, "JPEG", quality=95, subsampling="4:4:4"),
    "jpeg progressive": encoded(PHOTOGRAPH, "JPEG", progressive=True),
    "jpeg of one pixel": encoded(photograph(1, 1), "JPEG"),
    "jpeg grey": encoded(PHOTOGRAPH.convert("L"), "JPEG"),
    "jpeg cmyk": encoded(PHOTOGRAPH.convert("CMYK"), "JPEG"),
    "jpeg rgb": encoded(PHOTOGRAPH, "JPEG", keep_rgb=True),
    "jpeg rotated by exif": with_exif_rotation(PHOTOGRAPH),
    "jpeg with bytes after its end": encoded(PHOTOGRAPH, "JPEG") + b"rubbish",
    "png": encoded(PHOTOGRAPH, "PNG"),
    "png grey": encoded(PHOTOGRAPH.convert("L"), "PNG"),
    "png with transparency": encoded(TRANSPARENT, "PNG"),
    "png grey with transparency": encoded(TRANSPARENT.convert("LA"), "PNG"),
    "png palette": encoded(PHOTOGRAPH.quantize(17), "PNG"),
    "png palette with transparency": encoded(PHOTOGRAPH.quantize(17), "PNG", transparency=3),
    "png of one bit": encoded(PHOTOGRAPH.convert("1"), "PNG"),
    "gif": encoded(PHOTOGRAPH, "GIF"),
    "bmp": encoded(PHOTOGRAPH, "BMP"),
    "tiff": encoded(PHOTOGRAPH, "TIFF"),
    "webp": encoded(PHOTOGRAPH, "WEBP"),
}


@pytest.fixture(params=["simplejpeg", "Pillow"])
def decoder(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr(module, "_simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


@pytest.mark.parametrize("name", FILES)
def test_pixels_equal_torchvisions_loader(tmp_path, decoder, name):
    # Always called .jpeg: the name says nothing, as with the one PNG in ImageNet.
    path = tmp_path / "image.jpeg"
    path.write_bytes(FILES[name])
    pixels = decode(FILES[name])
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(pil_loader(str(path))))


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "jpeg progressive", "jpeg grey"])
def test_the_fast_decoder_takes_ordinary_jpeg(name):
    pytest.importorskip("simplejpeg")
    assert module._decode_jpeg(FILES[name]) is not None


@pytest.mark.parametrize("name", ["jpeg 4:2:0", "jpeg progressive", "png", "webp"])
def test_incomplete_files_are_refused(decoder, name):
    for data in (FILES[name][: len(FILES[name]) // 2], FILES[name][:20], b"", b"no image"):
        with pytest.raises(ValueError, match="cannot be decoded"):
            decode(data)


def test_damage_inside_is_treated_alike_by_both_decoders(monkeypatch):
    # Pillow accepts most of it, so whether simplejpeg is installed must not matter.
    random = np.random.default_rng(0)
    data = [bytearray(FILES["jpeg 4:2:0"]) for _ in range(40)]
    for file in data:
        where = random.integers(600, len(file) - 40)
        file[where : where + 30] = random.integers(0, 256, 30, np.uint8).tobytes()
    results = []
    for decoder in (module._simplejpeg, None):
        monkeypatch.setattr(module, "_simplejpeg", decoder)
        results.append([outcome(bytes(file)) for file in data])
    assert results[0] == results[1]


def outcome(data):
    try:
        return decode(data).tobytes()
    except ValueError:
        return "refused"
