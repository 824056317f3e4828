"""Pixels as the network is shown them for inference, bit for bit as torchvision's."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def to_input(
    images: UInt8[Array | np.ndarray, "batch height width 3"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "batch height width 3"]:
    """Return `(images / 255 - mean) / std` in float32; inside jit or outside, on any device.

    Looked up, because compilers turn divisions by constants into products, which round otherwise.
    Training computes (`deit_jax.augment.pipeline.normalise`; at most 5e-7 apart with ImageNet's
    mean and deviation): one multiplication and one addition, fused with what is done before and
    after, to images that no other program has to agree on.
    """
    table = jnp.asarray(normalised_levels(mean, std))
    return table[jnp.asarray(images), np.arange(3)]


def normalised_levels(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[np.ndarray, "256 3"]:
    """Return what torchvision's ToTensor and Normalize make of each level in each channel.

    They divide, subtract and divide, and round to float32 each time
    (torchvision/transforms/_functional_tensor.py).
    """
    levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    return (levels - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def to_levels(
    images: Float[np.ndarray, "batch height width 3"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> UInt8[np.ndarray, "batch height width 3"]:
    """Undo the normalisation, as far as the result can be shown."""
    shown = (images * np.asarray(std) + np.asarray(mean)) * 255
    return np.clip(np.rint(shown), 0, 255).astype(np.uint8)
