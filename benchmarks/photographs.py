"""Folders of JPEG files as large and as hard to decode as those of ImageNet, made on the spot."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

# Shares of the sizes as in ImageNet's training set: half of it is 500 x 375.
_SIZES = (
    ((500, 375),) * 11 + ((375, 500),) * 4 + ((500, 333),) * 2 + ((400, 300),) * 2 + ((640, 480),)
)
_CLASSES = 8


def write_folder(directory: Path, count: int, split: str = "train") -> int:
    """Write `count` files into directory/split/class/*.jpeg, always the same ones.

    Returns:
        Their bytes, about 110,000 for each as in ImageNet.
    """
    total = 0
    for number in range(count):
        folder = directory / split / f"class{number % _CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        data = photograph(number)
        (folder / f"{number:06}.jpeg").write_bytes(data)
        total += len(data)
    return total


def photograph(number: int) -> bytes:
    """One JPEG file: smooth areas, edges and fine grain; quality 90, colour at half resolution."""
    generator = np.random.default_rng(number)
    size = _SIZES[number % len(_SIZES)]
    layers = np.zeros((size[1], size[0], 3), np.float32)
    for detail, strength in ((6, 90.0), (40, 45.0), (160, 26.0)):
        cells = generator.integers(0, 256, (detail * size[1] // size[0], detail, 3), np.uint8)
        coarse = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
        layers += (np.asarray(coarse, np.float32) - 127.5) * (strength / 127.5)
    layers += generator.normal(0, 13, (*layers.shape[:2], 1)).astype(np.float32)
    file = io.BytesIO()
    pixels = (127.5 + layers).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling="4:2:0")
    return file.getvalue()
