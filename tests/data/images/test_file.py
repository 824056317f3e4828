"""What may be opened as an image: few formats, regular files, no more bytes than an image has."""

import ast
import contextlib
import os
import pathlib
import stat
import subprocess
import sys

import pytest
from PIL import EpsImagePlugin, Image

import deit_jax
from deit_jax.data.images.decode import decode
from deit_jax.data.images.file import IMAGE_FORMATS, MOST_BYTES, open_image, read_image_file

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
newpath 0 0 moveto 10 10 lineto stroke
showpage
%%EOF
"""


def test_postscript_by_the_name_of_a_jpeg_starts_no_program(tmp_path, monkeypatch):
    # A stand-in for Ghostscript that leaves a mark, where Pillow looks for it.
    mark, program = tmp_path / "mark", tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 0\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    file = tmp_path / "photo.jpg"
    file.write_bytes(POSTSCRIPT)
    # Pillow left to itself does start it: the test could fail.
    with contextlib.suppress(OSError), Image.open(file) as image:
        image.load()
    assert mark.exists()
    mark.unlink()
    with pytest.raises(ValueError, match="none of the formats JPEG, PNG, GIF, BMP, PPM, TIFF"):
        decode(file.read_bytes())
    assert not mark.exists()


@pytest.mark.parametrize(
    "start", [b"%PDF-1.7\n", b"SIMPLE  =                    T", b"II\xbc\x01", b"\x00\x00\x01\x00"]
)
def test_other_formats_are_not_even_tried(start):
    with pytest.raises(ValueError, match="none of the formats"):
        open_image(start.ljust(3000, b" "))


def test_formats_are_those_that_pillow_has():
    assert set(IMAGE_FORMATS) <= Image.OPEN.keys() | {"AVIF"}


def test_no_other_line_opens_images_of_users():
    package = pathlib.Path(deit_jax.__file__).parent
    calls = []
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source if "Image.open" in source else "")):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                calls.append(path.name)
    assert calls == ["file.py"]


def test_pipes_devices_and_giants_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(ValueError, match="no regular file"):
            read_image_file(tmp_path / name)
    with open(tmp_path / "giant.jpg", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ValueError, match="1,073,741,825 bytes, more than any image"):
        read_image_file(tmp_path / "giant.jpg")
    (tmp_path / "sound.jpg").write_bytes(b"bytes")
    assert read_image_file(tmp_path / "sound.jpg") == b"bytes"


def test_sound_images_are_decoded_without_warnings_of_pillow(tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette(range(48))
    file = tmp_path / "palette.png"
    image.save(file, transparency=bytes([0, 128]))
    with (
        pytest.warns(UserWarning, match="Palette images with Transparency"),
        Image.open(file) as raw,
    ):
        raw.convert("RGB")
    # In a process of its own: pytest has its own filters.
    code = (
        "import pathlib; from PIL import Image; from deit_jax.data.images.decode import decode; "
        f"Image.MAX_IMAGE_PIXELS = 3; decode(pathlib.Path({str(file)!r}).read_bytes())"
    )
    root = pathlib.Path(deit_jax.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_pillow_says_goes_into_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    Image.new("L", (2, 2)).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match=r"^cannot be decoded .* limit of 2 pixels, .*[^.]$"):
        decode((tmp_path / "image.png").read_bytes())
