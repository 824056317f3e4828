"""A picture of what the network sees: crops, augmented, erased, mixed."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from deit_jax.augment.choices import Choices, Operations, draw_choices
from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.mixup_cutmix import MixChoices, apply_mixing, draw_mixing
from deit_jax.augment.normalise import to_levels
from deit_jax.augment.operations import TABLE_KINDS, Kind
from deit_jax.augment.pipeline import apply_to_levels, apply_to_values
from deit_jax.augment.recipes import Recipe
from deit_jax.data.images.decode import decode
from deit_jax.data.images.file import read_image_file
from deit_jax.sheets import draw_sheet

_UNITS = {
    Kind.ROTATE: "°", Kind.TRANSLATE_X: " px", Kind.TRANSLATE_Y: " px", Kind.BLUR: " px",
    Kind.POSTERIZE: " bits",
}  # fmt: skip


def contact_sheet(
    sources: list[Image.Image], recipe: Recipe, size: int, seed: int, epoch: int
) -> Image.Image:
    """Draw one column per source image, and one row per stage of the recipe.

    Args:
        sources: RGB images of any size.
        recipe: what to show.
        size: side of the square crops in pixels.
        seed: of all choices.
        epoch: whose choices are shown.
    """
    count = len(sources)
    crops = np.stack(
        [random_crop(image, size, [seed, epoch, at]) for at, image in enumerate(sources)]
    )
    numbers = jnp.arange(count)
    keys = image_keys(seed, jnp.full(count, epoch), numbers, jnp.zeros(count, jnp.int32))
    options = recipe.augment
    choices = jax.jit(draw_choices, static_argnums=(1, 2, 3))(
        purpose(keys, "augment"), options, size, size
    )
    augmented = jax.jit(apply_to_levels, static_argnums=2)(crops, choices, options)
    images = jax.jit(apply_to_values, static_argnums=2)(augmented, choices, options)
    levels = np.asarray(augmented)
    rows = [
        ("crop", crops, [f"sample {number}" for number in range(count)]),
        ("operations", levels, [describe_choices(choices, number) for number in range(count)]),
    ]
    if options.erasing_probability:
        erased = np.asarray(choices.boxes.height).max(axis=1) > 0
        captions = ["erased" if one else "whole" for one in erased]
        rows.append(("erasing", to_levels(np.asarray(images), options.mean, options.std), captions))
    if recipe.mix.active:
        mixing = draw_mixing(purpose(keys, "mix"), recipe.mix, size, size)
        mixed, _ = apply_mixing(images, jnp.eye(count), mixing)
        captions = [describe_mixing(mixing, number, count) for number in range(count)]
        rows.append(("mixing", to_levels(np.asarray(mixed), options.mean, options.std), captions))
    return draw_sheet(rows, count)


def random_crop(image: Image.Image, size: int, seed: list[int]) -> UInt8[np.ndarray, "size size 3"]:
    """Cut out 8 to 100 % of the area at an aspect of 3/4 to 4/3, and resize it bicubically."""
    generator = np.random.default_rng(seed)
    width, height = image.size
    for _ in range(10):
        area = width * height * generator.uniform(0.08, 1.0)
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            break
    else:
        wide = tall = min(width, height)
    left = int(generator.integers(0, width - wide + 1))
    top = int(generator.integers(0, height - tall + 1))
    box = (left, top, left + wide, top + tall)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def describe_choices(choices: Choices, number: int) -> str:
    """Name what was drawn for one image, one operation per line."""
    lines = ["flipped"] if choices.flip[number] else []
    operations: Operations
    for operations in (choices.policy, choices.jitter):
        for layer in range(operations.kind.shape[0]):
            kind = Kind(int(operations.kind[layer, number]))
            if kind == Kind.NONE:
                continue
            name = kind.name.lower().replace("_", " ")
            plain = TABLE_KINDS[:3]  # autocontrast, equalise and invert have no argument
            value = "" if kind in plain else f" {float(operations.argument[layer, number]):.4g}"
            lines.append(name + value + _UNITS.get(kind, ""))
    return "\n".join(lines)


def describe_mixing(mixing: MixChoices, number: int, count: int) -> str:
    """Say with whom an image was mixed, and what its own label keeps."""
    kept = float(mixing.target_weight[number])
    name = "CutMix" if mixing.cutmix[number] else "Mixup"
    return f"{name} with {count - 1 - number}\nown label {kept:.2f}"


def open_picture(path: str) -> Image.Image:
    """Read an image as RGB.

    Raises:
        FileNotFoundError, ValueError: it is not there, or no image; names the file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no image file {path}: check the path.")
    try:
        return Image.fromarray(decode(read_image_file(path)))
    except ValueError as error:
        raise ValueError(f"{path} is not an image to show: {error}; give another.") from error
