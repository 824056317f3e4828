"""Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899) with soft targets.

Partners are taken inside groups of consecutive images: with a group no larger than a device's
share of the batch nothing moves between devices, and each group draws its own mixing weight, as
each process of the reference does (timm 1.0.31, `data/mixup.py`).
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from deit_jax.schema.images import MixOptions

_LARGEST_POWER = 5.0


class MixChoices(NamedTuple):
    """The draws of `mix`, one per image; `target_weight` is what the image's own label keeps."""

    cutmix: Bool[Array, " batch"]
    pixel_weight: Float[Array, " batch"]
    target_weight: Float[Array, " batch"]
    top: Int[Array, " batch"]
    bottom: Int[Array, " batch"]
    left: Int[Array, " batch"]
    right: Int[Array, " batch"]


def one_hot_targets(
    labels: Int[Array, " batch"], num_classes: int, smoothing: float = 0.0
) -> Float[Array, "batch classes"]:
    """Return smoothed one-hot rows: `smoothing / num_classes` off, the rest on the label.

    Every row sums to 1. With smoothing 0.1 this is the target of the paper's Table 9 (epsilon).
    """
    off = smoothing / num_classes
    return jax.nn.one_hot(labels, num_classes) * (1.0 - smoothing) + off


def mix(
    images: Float[Array, "batch height width 3"],
    targets: Float[Array, "batch classes"],
    keys: Key[Array, " batch"],
    options: MixOptions,
) -> tuple[Float[Array, "batch height width 3"], Float[Array, "batch classes"]]:
    """Mix each image and its target with those of its partner.

    Image `i` of a group of `n` has image `n - 1 - i` as its partner. The draw of a whole group
    derives from the key of its first image, so it depends on which images form the group and on
    nothing else.

    Args:
        images: Normalised images, float32.
        targets: One row per image, summing to 1.
        keys: One key per image.
        options: What to mix.

    Returns:
        Mixed images and mixed targets.

    Raises:
        ValueError: The group does not divide the batch, or is odd in mode "pair".
    """
    if not options.active:
        return images, targets
    choices = draw_mixing(keys, options, images.shape[1], images.shape[2])
    return apply_mixing(images, targets, choices, options.group)


def draw_mixing(
    keys: Key[Array, " batch"], options: MixOptions, height: int, width: int
) -> MixChoices:
    """Draw how each image of a batch is mixed."""
    batch = keys.shape[0]
    size = group_size(batch, options.group)
    if options.mode == "pair" and size % 2:
        raise ValueError(f"Mixing in pairs needs an even group, not {size}: change group or mode.")
    grouped = keys.reshape(batch // size, size)
    drawing = {"batch": 1, "pair": size // 2, "elem": size}[options.mode]
    drawn = _draw(grouped[:, :drawing].reshape(-1), options, height, width)

    def spread(values: Array) -> Array:
        values = values.reshape(batch // size, drawing)
        if options.mode == "pair":
            values = jnp.concatenate([values, values[:, ::-1]], axis=1)
        return jnp.broadcast_to(values, (batch // size, size)).reshape(batch)

    return MixChoices(*map(spread, drawn))


def apply_mixing(
    images: Float[Array, "batch height width 3"],
    targets: Float[Array, "batch classes"],
    choices: MixChoices,
    group: int = 0,
) -> tuple[Float[Array, "batch height width 3"], Float[Array, "batch classes"]]:
    """Mix images and targets as drawn."""
    _, height, width, _ = images.shape

    def column(values: Array) -> Array:
        return values[:, None, None, None]

    rows, columns = jnp.arange(height)[None, :, None, None], jnp.arange(width)[None, None, :, None]
    boxed = (rows >= column(choices.top)) & (rows < column(choices.bottom))
    boxed &= (columns >= column(choices.left)) & (columns < column(choices.right))
    pasted = jnp.where(boxed, 0.0, 1.0)
    weight = jnp.where(column(choices.cutmix), pasted, column(choices.pixel_weight))
    mixed = images * weight + partners(images, group) * (1.0 - weight)
    kept = choices.target_weight[:, None]
    return mixed, targets * kept + partners(targets, group) * (1.0 - kept)


def partners(values: Float[Array, "batch ..."], group: int) -> Float[Array, "batch ..."]:
    """Return the partner of each row: the same group in reverse order."""
    batch = values.shape[0]
    size = group_size(batch, group)
    return values.reshape(batch // size, size, *values.shape[1:])[:, ::-1].reshape(values.shape)


def group_size(batch: int, group: int) -> int:
    """Return the number of images per group, or raise ValueError if it does not divide."""
    size = group or batch
    if batch % size:
        raise ValueError(f"A mixing group of {size} images does not divide a batch of {batch}.")
    return size


def beta_quantile(uniform: Float[Array, " draws"], alpha: float) -> Float[Array, " draws"]:
    """Turn uniform draws into draws of Beta(alpha, alpha).

    A table serves instead of rejection sampling, whose loop would have to wait for the unluckiest
    device. With s = x^alpha, s grows almost in proportion to the distribution function, so straight
    lines between 4,096 points follow it: to about 1e-6 for an alpha up to 2, 1e-4 up to 5. With a
    larger one s = x^5 does, to 2e-4: x^alpha would be too small to be told apart.
    """
    lower = jnp.minimum(uniform, 1.0 - uniform)
    points = _beta_points(alpha)
    at = lower * (2 * (len(points) - 1))
    before = jnp.minimum(at.astype(jnp.int32), len(points) - 2)
    table = jnp.asarray(points)
    powered = table[before] + (at - before) * (table[before + 1] - table[before])
    quantile = powered ** (1 / min(alpha, _LARGEST_POWER))
    return jnp.where(uniform < 0.5, quantile, 1.0 - quantile)


@cache
def _beta_points(alpha: float) -> np.ndarray:
    """Return s = x^alpha, or x^5, at 4,096 equal steps of the distribution function up to 1/2."""
    power = min(alpha, _LARGEST_POWER)
    powered = np.linspace(0.0, 0.5**power, 1 << 17)
    x = powered ** (1 / power)
    density = (4 * x * (1 - x)) ** (alpha - power) * (1 - x) ** (power - 1)
    reached = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    wanted = np.linspace(0.0, reached[-1], 4096)
    return np.interp(wanted, reached, powered).astype(np.float32)


def _draw(keys: Key[Array, " draws"], options: MixOptions, height: int, width: int) -> MixChoices:
    """Draw one independent set of choices per key (timm `Mixup._params_per_elem`)."""
    draws = jax.vmap(lambda key: jax.random.uniform(key, (7,)))(keys).T
    if options.mixup_alpha > 0 and options.cutmix:
        cutmix = draws[0] < options.switch_probability
    else:
        cutmix = jnp.full(keys.shape, options.cutmix)
    mixes = draws[1] < options.probability

    weight, share = jnp.ones(keys.shape), jnp.ones(keys.shape)
    if options.mixup_alpha > 0:
        weight = beta_quantile(draws[2], options.mixup_alpha)
    if options.cutmix and not options.minmax:
        share = beta_quantile(draws[2], options.cutmix_alpha)
    bounds = []
    for side, size, place in ((height, draws[3], draws[4]), (width, draws[5], draws[6])):
        if options.minmax:
            bounds += _side_between(options, side, size, place)
        else:
            bounds += _side_of_area(options, 1.0 - share, side, place)
    top, bottom, left, right = bounds
    # Where nothing is mixed the draw counts as a Mixup of weight 1.
    cutmix &= mixes
    weight = jnp.where(mixes, weight, 1.0)
    area = ((bottom - top) * (right - left)).astype(jnp.float32)
    kept = jnp.where(cutmix, 1.0 - area / (height * width), weight)
    return MixChoices(cutmix, weight, kept, top, bottom, left, right)


def _side_of_area(
    options: MixOptions, area: Float[Array, " draws"], side: int, place: Float[Array, " draws"]
) -> list[Int[Array, " draws"]]:
    """One side of a box around a uniform centre, cut off at the borders (CutMix, eq. 2)."""
    centre = jnp.floor(place * side).astype(jnp.int32)
    cut = jnp.floor(side * jnp.sqrt(area)).astype(jnp.int32)
    before = cut // 2
    behind = before if options.box == "reference" else cut - before
    return [jnp.clip(centre - before, 0, side), jnp.clip(centre + behind, 0, side)]


def _side_between(
    options: MixOptions, side: int, size: Float[Array, " draws"], place: Float[Array, " draws"]
) -> list[Int[Array, " draws"]]:
    """One side of a box between two shares of the image's, wholly inside the image."""
    smallest, beyond = (int(side * share) for share in options.minmax)
    if smallest >= beyond:
        raise ValueError(f"minmax {options.minmax} leaves no box size for a side of {side} pixels.")
    cut = smallest + jnp.floor(size * (beyond - smallest)).astype(jnp.int32)
    places = side - cut + (0 if options.box == "reference" else 1)
    start = jnp.floor(place * places).astype(jnp.int32)
    return [start, start + cut]
