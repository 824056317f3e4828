"""From a batch of uint8 crops to what the network sees: draw, apply, normalise, erase."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Key, UInt8

from deit_jax.augment.apply import apply_operations
from deit_jax.augment.choices import Choices, draw_choices
from deit_jax.augment.erasing import erase
from deit_jax.augment.framing import flip_selected, pad_and_crop
from deit_jax.augment.operations import Kind
from deit_jax.augment.randaugment import parse_policy
from deit_jax.schema.images import AugmentOptions

__all__ = ["AugmentOptions", "apply_choices", "augment_images", "normalise"]

JITTER_KINDS = frozenset((Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR))


def augment_images(
    images: UInt8[Array, "batch height width 3"],
    keys: Key[Array, " batch"],
    options: AugmentOptions,
    sharding: NamedSharding | None = None,
) -> Float[Array, "batch height width 3"]:
    """Augment and normalise a batch; each image depends on its own pixels and key only.

    Args:
        images: Crops of one size, 0 to 255.
        keys: One key per image, from `deit_jax.augment.keys.image_keys`.
        options: What to do.
        sharding: How the batch is split over devices. With it each device works on its own
            images and nothing moves between devices; without it the result is the same.

    Returns:
        Normalised float32 images of the same size.
    """
    function = partial(_augment, options=options)
    if sharding is None:
        return function(images, keys)
    spec = jax.sharding.PartitionSpec(sharding.spec[0])
    return jax.shard_map(
        function, mesh=sharding.mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False
    )(images, keys)


def apply_choices(
    images: UInt8[Array, "batch height width 3"], choices: Choices, options: AugmentOptions
) -> Float[Array, "batch height width 3"]:
    """Do to each image what was drawn for it."""
    return apply_to_values(apply_to_levels(images, choices, options), choices, options)


def apply_to_levels(
    images: UInt8[Array, "batch height width 3"], choices: Choices, options: AugmentOptions
) -> UInt8[Array, "batch height width 3"]:
    """Do the part that works on whole levels: crop, flip, policy and colour jitter."""
    if options.crop_padding:
        images = pad_and_crop(images, choices.crop, options.crop_padding, options.crop_mode)
    if options.flip > 0:
        images = flip_selected(images, choices.flip)
    if options.policy:
        kinds = parse_policy(options.policy).kinds
        images = apply_operations(
            images, choices.policy, kinds, options.fill, options.interpolation
        )
    if options.color_jitter:
        images = apply_operations(images, choices.jitter, JITTER_KINDS)
    return images


def apply_to_values(
    images: UInt8[Array, "batch height width 3"], choices: Choices, options: AugmentOptions
) -> Float[Array, "batch height width 3"]:
    """Do the part that works on real numbers: normalise and erase."""
    normalised = normalise(images, options.mean, options.std)
    if options.erasing_probability > 0:
        normalised = erase(normalised, choices.boxes, choices.noise, options)
    return normalised


def normalise(
    images: UInt8[Array, "batch height width 3"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "batch height width 3"]:
    """Return `(images / 255 - mean) / std` in float32, as training computes it.

    One multiplication and one addition, to be fused with what is done before and after. With
    ImageNet's mean and deviation it is at most 5e-7 from what inference looks up to have
    torchvision's bits (`deit_jax.augment.normalise.to_input`).
    """
    scale = np.float32(1.0 / (255.0 * np.asarray(std, np.float64)))
    shift = np.float32(-np.asarray(mean, np.float64) / np.asarray(std, np.float64))
    return images.astype(jnp.float32) * scale + shift


def _augment(
    images: UInt8[Array, "batch height width 3"],
    keys: Key[Array, " batch"],
    options: AugmentOptions,
) -> Float[Array, "batch height width 3"]:
    _, height, width, _ = images.shape
    return apply_choices(images, draw_choices(keys, options, height, width), options)
