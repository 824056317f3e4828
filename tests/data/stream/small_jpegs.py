"""A folder of small images, and all that a stream gives of it."""

import io

import numpy as np
from PIL import Image

SIZE = (8, 8)


def jpeg(seed, size=12, kind="JPEG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(directory, count):
    for index in range(count):
        path = directory / "train" / f"class{index % 4}" / f"{index:05}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(index))
    return directory


def collect(batches):
    with batches:
        return list(batches), batches.damaged
