"""The same augmentation on the host, with Pillow.

It serves machines whose processors have time to spare, and it is what the device is checked
against: both take their random choices from `deit_jax.augment.choices`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
from jaxtyping import Array, Float, Key, UInt8
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from deit_jax.augment.choices import Choices, draw_choices
from deit_jax.augment.erasing import box_noise, box_slices
from deit_jax.augment.operations import Kind
from deit_jax.schema.images import AugmentOptions

_draw = jax.jit(draw_choices, static_argnums=(1, 2, 3))
_noise = jax.jit(box_noise, static_argnums=(1, 2, 3, 4))


def augment_on_host(
    images: UInt8[np.ndarray, "batch height width 3"],
    keys: Key[Array, " batch"],
    options: AugmentOptions,
    threads: int = 1,
) -> Float[np.ndarray, "batch height width 3"]:
    """Augment and normalise a batch with Pillow; call it outside jit.

    Args:
        images: Crops of one size, 0 to 255.
        keys: One key per image, the same as for `deit_jax.augment.pipeline.augment_images`.
        options: What to do.
        threads: Images worked on at once. Pillow lets other threads run while it computes.

    Returns:
        Normalised float32 images. Geometric operations differ from the device's by one level on
        fewer than one pixel in a thousand; everything else that works on levels is equal.
    """
    _, height, width, _ = images.shape
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        keys = jax.device_put(keys, jax.local_devices(backend="cpu")[0])
        choices = _draw(keys, options, height, width)
    return apply_on_host(images, choices, options, threads)


def apply_on_host(
    images: UInt8[np.ndarray, "batch height width 3"],
    choices: Choices,
    options: AugmentOptions,
    threads: int = 1,
) -> Float[np.ndarray, "batch height width 3"]:
    """Do to each image what was drawn for it, with Pillow."""
    levels = levels_on_host(images, choices, options, threads)
    mean, std = np.array(options.mean, np.float32), np.array(options.std, np.float32)
    normalised = (levels.astype(np.float32) / np.float32(255) - mean) / std
    boxes = jax.tree.map(np.asarray, choices.boxes)
    for image in range(len(images)):
        for number, rows, columns in box_slices(boxes, image):
            noise = _noise(choices.noise[image][None], number, options, *levels.shape[1:3])
            tall, wide = rows.stop - rows.start, columns.stop - columns.start
            filling = np.asarray(noise[0])
            if len(filling) > 1:
                filling = filling[: tall * wide].reshape(tall, wide, 3)
            normalised[image, rows, columns] = filling
    return normalised


def levels_on_host(
    images: UInt8[np.ndarray, "batch height width 3"],
    choices: Choices,
    options: AugmentOptions,
    threads: int = 1,
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Do the part that works on whole levels: crop, flip, policy and colour jitter."""
    crop, flip = np.asarray(choices.crop), np.asarray(choices.flip)
    layers = jax.tree.map(np.asarray, (choices.policy, choices.jitter))

    def one(number: int) -> np.ndarray:
        pixels = images[number]
        if options.crop_padding:
            pixels = _crop(pixels, crop[number], options.crop_padding, options.crop_mode)
        image = Image.fromarray(pixels)
        if flip[number]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for operations in layers:
            for kind, argument, rest, bicubic in zip(
                *(part[:, number] for part in operations), strict=True
            ):
                smooth = options.interpolation == "bicubic" or (
                    options.interpolation == "random" and bool(bicubic)
                )
                exact = float(argument) + float(rest)
                image = operate(image, Kind(int(kind)), exact, smooth, options.fill)
        return np.asarray(image)

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(one, range(len(images)))))


def operate(
    image: Image.Image,
    kind: Kind,
    argument: float,
    bicubic: bool = True,
    fill: tuple[int, int, int] = (124, 116, 104),
) -> Image.Image:
    """Apply one primitive operation to one image with Pillow."""
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    whole = int(argument)
    affine = {
        Kind.SHEAR_X: (1, argument, 0, 0, 1, 0),
        Kind.SHEAR_Y: (1, 0, 0, argument, 1, 0),
        Kind.TRANSLATE_X: (1, 0, argument, 0, 1, 0),
        Kind.TRANSLATE_Y: (1, 0, 0, 0, 1, argument),
    }
    if kind in affine:
        return image.transform(
            image.size, Image.Transform.AFFINE, affine[kind], resample, fillcolor=fill
        )
    rest: dict[Kind, Callable[[], Image.Image]] = {
        Kind.NONE: lambda: image,
        Kind.AUTOCONTRAST: partial(ImageOps.autocontrast, image),
        Kind.EQUALIZE: partial(ImageOps.equalize, image),
        Kind.INVERT: partial(ImageOps.invert, image),
        # A table of its own: from version 13 on, Pillow refuses to keep no bits at all.
        Kind.POSTERIZE: lambda: image.point(_posterised(whole) * 3),
        Kind.SOLARIZE: partial(ImageOps.solarize, image, whole),
        Kind.SOLARIZE_ADD: lambda: image.point(_solarised_by_adding(whole) * 3),
        Kind.CONTRAST: lambda: ImageEnhance.Contrast(image).enhance(argument),
        Kind.BRIGHTNESS: lambda: ImageEnhance.Brightness(image).enhance(argument),
        Kind.COLOR: lambda: ImageEnhance.Color(image).enhance(argument),
        Kind.SHARPNESS: lambda: ImageEnhance.Sharpness(image).enhance(argument),
        Kind.ROTATE: lambda: image.rotate(argument, resample, fillcolor=fill),
        Kind.BLUR: lambda: image.filter(ImageFilter.GaussianBlur(argument)),
    }
    return rest[kind]()


def _posterised(bits: int) -> list[int]:
    dropped = min(max(8 - bits, 0), 8)
    return [level >> dropped << dropped for level in range(256)]


def _solarised_by_adding(amount: int) -> list[int]:
    return [min(255, level + amount) if level < 128 else level for level in range(256)]


def _crop(
    pixels: UInt8[np.ndarray, "height width 3"],
    offset: np.ndarray,
    padding: int,
    mode: str,
) -> UInt8[np.ndarray, "height width 3"]:
    height, width, _ = pixels.shape
    sides = ((padding, padding), (padding, padding), (0, 0))
    padded = np.pad(pixels, sides, mode="reflect" if mode == "reflect" else "constant")
    top, left = (int(at) for at in offset)
    return padded[top : top + height, left : left + width]
