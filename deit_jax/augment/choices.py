"""The random choices of an augmentation, drawn apart from their application.

So Pillow can apply the same choices (`benchmarks.pillow_augmentation`); a choice depends on the key
of its image alone.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from deit_jax.augment.keys import purpose
from deit_jax.augment.operations import OPERATIONS, Draw, Kind, argument_at, operation_arguments
from deit_jax.augment.randaugment import Entry, Policy, parse_policy
from deit_jax.schema.images import AugmentOptions

ATTEMPTS = 10
"""Boxes tried before an image stays whole (timm `RandomErasing`)."""


class Operations(NamedTuple):
    """Primitive operations, applied one layer after the other.

    `rest` is what float32 could not hold of an argument that does not vary.
    """

    kind: Int[Array, "layers batch"]
    argument: Float[Array, "layers batch"]
    rest: Float[Array, "layers batch"]
    bicubic: Bool[Array, "layers batch"]


class Boxes(NamedTuple):
    """Rectangles to erase; one without height erases nothing."""

    top: Int[Array, "batch count"]
    left: Int[Array, "batch count"]
    height: Int[Array, "batch count"]
    width: Int[Array, "batch count"]


class Choices(NamedTuple):
    """Everything that is random about the augmentation of a batch."""

    crop: Int[Array, "batch 2"]
    flip: Bool[Array, " batch"]
    policy: Operations
    jitter: Operations
    boxes: Boxes
    noise: Key[Array, " batch"]


def draw_choices(
    keys: Key[Array, " batch"], options: AugmentOptions, height: int, width: int
) -> Choices:
    """Draw what happens to each image of a batch of one size."""
    frame = _uniform(purpose(keys, "frame"), 3)
    return Choices(
        crop=_whole(frame[:, :2], 2 * options.crop_padding + 1),
        flip=frame[:, 2] < options.flip,
        policy=draw_policy(purpose(keys, "policy"), options, height, width),
        jitter=draw_jitter(purpose(keys, "jitter"), options.color_jitter),
        boxes=draw_boxes(purpose(keys, "erasing"), options, height, width),
        noise=purpose(keys, "noise"),
    )


def draw_policy(
    keys: Key[Array, " batch"], options: AugmentOptions, height: int, width: int
) -> Operations:
    """Draw the operations of the policy, with their arguments."""
    if not options.policy:
        return _no_operations(keys.shape[0])
    policy = parse_policy(options.policy)
    layers = len(policy.layers)
    picks = _picks(purpose(keys, "picks"), policy)
    coins = _uniform(purpose(keys, "coins"), 4 * layers).T.reshape(layers, 4, -1)
    noise_keys = purpose(keys, "magnitude")
    if math.isinf(policy.magnitude_std):
        noise = _uniform(noise_keys, layers)
    elif policy.magnitude_std:
        noise = jax.vmap(lambda key: jax.random.normal(key, (layers,)))(noise_keys)
    else:
        noise = jnp.zeros((keys.shape[0], layers))
    drawn = [
        _layer(policy, entries, picks[number], coins[number], noise[:, number], height, width)
        for number, entries in enumerate(policy.layers)
    ]
    return Operations(*map(jnp.stack, zip(*drawn, strict=True)))


def draw_jitter(keys: Key[Array, " batch"], strength: float) -> Operations:
    """Draw brightness, contrast and saturation factors, in random order.

    Each factor is uniform in `1 - strength` to `1 + strength`, from 0 (torchvision `ColorJitter`).
    """
    if not strength:
        return _no_operations(keys.shape[0])
    draws = _uniform(keys, 4)
    low, high = max(0.0, 1.0 - strength), 1.0 + strength
    factors = low + (high - low) * draws[:, :3]
    kinds = [Kind.BRIGHTNESS, Kind.CONTRAST, Kind.COLOR]
    orders = jnp.array(list(itertools.permutations(range(3))))
    order = orders[_whole(draws[:, 3], len(orders))]
    kind = jnp.array(kinds, jnp.int32)[order].T
    argument = jnp.take_along_axis(factors.astype(jnp.float32), order, axis=1).T
    return Operations(kind, argument, jnp.zeros_like(argument), jnp.ones(kind.shape, bool))


def draw_boxes(
    keys: Key[Array, " batch"], options: AugmentOptions, height: int, width: int
) -> Boxes:
    """Draw the rectangles to erase: area, then aspect, then place; ten attempts for each."""
    count = options.erasing_count
    if not options.erasing_probability:
        return Boxes(*[jnp.zeros((keys.shape[0], count), jnp.int32)] * 4)
    draws = _uniform(keys, 2 + count * ATTEMPTS * 4)
    number = 1 + _whole(draws[:, 1], count)
    erased = (draws[:, 0] < options.erasing_probability)[:, None]
    wanted = erased & (jnp.arange(count) < number[:, None])
    attempts = draws[:, 2:].reshape(-1, count, ATTEMPTS, 4)
    area, aspect, down, right = jnp.moveaxis(attempts, -1, 0)
    smallest, largest = options.erasing_area
    area = (smallest + (largest - smallest) * area) * (height * width) / number[:, None, None]
    log_aspect = math.log(options.erasing_aspect)
    aspect = jnp.exp(log_aspect - 2 * log_aspect * aspect)
    tall = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    wide = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (tall < height) & (wide < width)
    first = jnp.argmax(fits, axis=-1, keepdims=True)

    def chosen(values: Array) -> Array:
        return jnp.take_along_axis(values, first, axis=-1)[..., 0]

    wanted &= jnp.any(fits, axis=-1)
    return Boxes(
        top=chosen(_whole(down, height - tall + 1)),
        left=chosen(_whole(right, width - wide + 1)),
        height=jnp.where(wanted, chosen(tall), 0),
        width=jnp.where(wanted, chosen(wide), 0),
    )


def _layer(
    policy: Policy,
    entries: tuple[Entry, ...],
    pick: Int[Array, " batch"],
    coins: Float[Array, "4 batch"],
    noise: Float[Array, " batch"],
    height: int,
    width: int,
) -> Operations:
    """Draw whether and how the picked operation of one layer is applied (timm `AugmentOp`)."""
    names, probabilities, magnitudes = zip(*entries, strict=True)
    applied, coin, uniform, interpolation = coins
    sign = jnp.where(coin > 0.5, -1.0, 1.0)
    if policy.magnitude_std > 0:
        level = jnp.array(magnitudes, jnp.float32)[pick]
        if math.isinf(policy.magnitude_std):
            level = level * noise
        else:
            level = level + policy.magnitude_std * noise
        level = jnp.clip(level, 0.0, policy.magnitude_max)
        argument = operation_arguments(names, pick, Draw(level, sign, uniform, height, width))
        rest = jnp.zeros_like(argument)
    else:
        fixed = _fixed_arguments(entries, policy.magnitude_max, height, width)
        at = (pick, (sign < 0).astype(jnp.int32))
        start, growth, rest = (jnp.asarray(values)[at] for values in fixed)
        argument = start + growth * uniform
    kinds = jnp.array([OPERATIONS[name].kind for name in names], jnp.int32)
    kind = jnp.where(applied < jnp.array(probabilities)[pick], kinds[pick], Kind.NONE)
    return Operations(kind, argument, rest, interpolation < 0.5)


def _fixed_arguments(
    entries: tuple[Entry, ...], bound: float, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments of noiseless magnitudes for either sign, their growth with the uniform draw, rests.

    Worked out in float64, because whole levels such as a solarise threshold are cut from them.
    """
    fixed = np.zeros((2, len(entries), 2))
    for number, (name, _, magnitude) in enumerate(entries):
        for column, sign in enumerate((1, -1)):
            for end in (0, 1):
                fixed[end, number, column] = argument_at(
                    name, min(magnitude, bound), sign, end, height, width
                )
    start = fixed[0].astype(np.float32)
    return start, (fixed[1] - fixed[0]).astype(np.float32), (fixed[0] - start).astype(np.float32)


def _picks(keys: Key[Array, " batch"], policy: Policy) -> Int[Array, "layers batch"]:
    """Draw which entry each layer takes."""
    layers, entries = len(policy.layers), len(policy.layers[0])
    if policy.weights:
        # The largest of log-weight plus Gumbel noise are a draw without replacement.
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, (entries,)))(keys)
        weights = jnp.log(jnp.array(policy.weights, jnp.float32))
        return jax.lax.top_k(gumbel + weights, layers)[1].T
    if policy.linked:
        return jnp.broadcast_to(_whole(_uniform(keys, 1), entries).T, (layers, keys.shape[0]))
    return _whole(_uniform(keys, layers), entries).T


def _no_operations(batch: int) -> Operations:
    nothing = jnp.zeros((0, batch))
    return Operations(nothing.astype(jnp.int32), nothing, nothing, nothing.astype(bool))


def _uniform(keys: Key[Array, " batch"], number: int) -> Float[Array, "batch number"]:
    return jax.vmap(lambda key: jax.random.uniform(key, (number,)))(keys)


def _whole(
    uniform: Float[Array, "*shape"], number: int | Int[Array, "*shape"]
) -> Int[Array, "*shape"]:
    """Turn uniform draws into whole numbers below `number`."""
    return jnp.floor(uniform * number).astype(jnp.int32)
