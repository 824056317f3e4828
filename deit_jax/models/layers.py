"""Layers of the vision transformer; activations are two-dimensional, [batch*tokens, width]."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from deit_jax.devices import platform
from deit_jax.models.products import dense, materialise
from deit_jax.sharding import whole

INIT_STD = 0.02
"""Of linear weights and embeddings. The reference truncates at 100 standard deviations: never."""

LAYER_SCALE_INIT = 1e-4
"""Of DeiT III's reference (models_v2.py). timm has 1e-6, which it never trained with."""


def fold_keys(keys: Key[Array, " batch"] | None, site: int) -> Key[Array, " batch"] | None:
    """Derive each image's key for one place that draws random numbers; None stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, site)


def dropout(
    x: Float[Array, "rows width"], rate: float, keys: Key[Array, " batch"] | None
) -> Float[Array, "rows width"]:
    """Zero each element with probability `rate` and scale the rest by 1/(1-rate)."""
    if keys is None or rate == 0.0:
        return x
    shape = (x.shape[0] // keys.shape[0], x.shape[1])
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(keys)
    return jnp.where(kept.reshape(x.shape), x / (1.0 - rate), 0.0)


def stochastic_depth(
    x: Float[Array, "rows width"], rate: float, keys: Key[Array, " batch"] | None
) -> Float[Array, "rows width"]:
    """Zero an image's whole residual branch with probability `rate`; else scale it by 1/(1-rate).

    Source: Huang et al. 2016, arXiv 1603.09382.
    """
    if keys is None or rate == 0.0:
        return x
    kept = kept_images(rate, keys)
    by_image = x.reshape(keys.shape[0], -1, x.shape[-1])
    return (by_image * (kept / (1.0 - rate))[:, None, None]).reshape(x.shape)


def kept_images(rate: float, keys: Key[Array, " batch"]) -> Bool[Array, " batch"]:
    """Draw whether each image keeps a residual branch, which it loses with probability `rate`."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate))(keys)


class Linear(nnx.Module):
    """Dense layer: kernel [in, out] of normal(0, 0.02), bias zero; multiplies in type `dtype`."""

    def __init__(self, in_features: int, out_features: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        draw = jax.random.normal(rngs.params(), (in_features, out_features), jnp.float32)
        self.kernel = nnx.Param(INIT_STD * draw)
        self.bias = nnx.Param(jnp.zeros((out_features,), jnp.float32))
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self, x: Float[Array, "rows in"], out_dtype: Any = jnp.float32
    ) -> Float[Array, "rows out"]:
        """Return `x @ kernel + bias`, accumulated in float32 and returned as `out_dtype`."""
        kernel = whole(self.kernel[...], self.dtype)
        return dense(x.astype(self.dtype), kernel, self.bias[...], out_dtype)


class LayerScale(nnx.Module):
    """One learnt factor for each feature, small at first (arXiv 2103.17239, section 2)."""

    def __init__(self, width: int) -> None:
        self.gamma = nnx.Param(jnp.full((width,), LAYER_SCALE_INIT, jnp.float32))

    def __call__(self, x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
        """Return each feature times its factor."""
        return x * self.gamma[...]


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Exact GELU, x * Phi(x), evaluated in float32; the tanh approximation is up to 5e-4 off."""
    wide = x.astype(jnp.float32)
    return (wide * (0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def gelu_gradient(
    x: Float[Array, "*shape"], grad: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the gradient before GELU, in the type of `x`, of that behind it."""
    wide = x.astype(jnp.float32)
    # Written unlike the forward pass, so that compilers recompute erf rather than keep it till now.
    distribution = 0.5 - 0.5 * jax.lax.erf(wide * -math.sqrt(0.5))
    density = jnp.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
    return (grad * (distribution + wide * density)).astype(x.dtype)


gelu.defvjp(lambda x: (gelu(x), x), lambda x, grad: (gelu_gradient(x, grad),))


class PatchProjection(nnx.Module):
    """Kernel and bias of `PatchEmbed`, under the name they have in published weights."""

    def __init__(self, shape: tuple[int, int, int, int], *, rngs: nnx.Rngs) -> None:
        bound = 1.0 / math.sqrt(math.prod(shape[:-1]))
        draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
        self.kernel = nnx.Param(draw(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(draw(rngs.params(), shape[-1:], jnp.float32))


class PatchEmbed(nnx.Module):
    """Linear projection of non-overlapping square patches, taken row by row.

    The one layer that keeps PyTorch's initialisation of convolutions in the reference: kernel
    [height, width, 3, features] and bias uniform within +-1/sqrt(fan_in).
    """

    def __init__(self, patch_size: int, width: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        shape = (patch_size, patch_size, 3, width)
        self.proj = PatchProjection(shape, rngs=rngs)
        self.patch_size = patch_size
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch patches features"]:
        """Return the embedded patches; image sides must be multiples of the patch size."""
        batch, height, width, channels = images.shape
        size = self.patch_size
        rows, columns = height // size, width // size
        if platform() == "cpu":
            # The same as below, a copy that JAX 0.11 makes three times as fast; TPUs lose by it.
            patches = images.reshape(batch * rows, size, columns, size * channels)
            patches = patches.transpose(0, 2, 1, 3)
        else:
            patches = images.reshape(batch, rows, size, columns, size, channels)
            patches = patches.transpose(0, 1, 3, 2, 4, 5)
        patches = patches.reshape(batch * rows * columns, -1)
        kernel = whole(self.proj.kernel[...], self.dtype)
        kernel = kernel.reshape(-1, kernel.shape[-1])
        embedded = dense(
            materialise(patches.astype(self.dtype)), kernel, self.proj.bias[...], jnp.float32
        )
        return embedded.reshape(batch, rows * columns, -1)


def check_images(images: Array, image_size: tuple[int, int] | None = None) -> None:
    """Refuse what is no batch of normalised images, channels last.

    Args:
        images: that a model is called with.
        image_size: (height, width) that it was built for; None for any.

    Raises:
        TypeError: they are whole numbers.
        ValueError: they have another shape.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"The model got images of type {images.dtype}; "
            "scale them to [0, 1] and normalise them by mean and standard deviation first."
        )
    right = images.ndim == 4 and images.shape[-1] == 3
    if image_size is None and not right:
        raise ValueError(
            f"The model got images of shape {images.shape} but takes [batch, height, width, 3]."
        )
    if image_size and not (right and images.shape[1:3] == image_size):
        raise ValueError(
            f"The model got images of shape {images.shape} but was built for [batch, "
            f"{image_size[0]}, {image_size[1]}, 3]; resize them or build it with their image_size."
        )
