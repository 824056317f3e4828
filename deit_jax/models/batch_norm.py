"""Batch normalisation with PyTorch's running statistics, and the convolution it folds into."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from deit_jax.models.architecture import EPSILON
from deit_jax.models.convolution import Convolution

# Share of the old running statistics that is kept; PyTorch writes the same as momentum 0.1.
MOMENTUM = 0.9


class BatchNorm(nnx.Module):
    """Normalises each channel over batch and space, in float32 (arXiv 1502.03167).

    Unlike `nnx.BatchNorm`, the running variance is the unbiased estimate, n / (n - 1) times the
    biased one that normalises, as in PyTorch: teachers trained on either side then agree.
    Inside jit all statistics are those of the whole batch, however it is sharded.
    """

    def __init__(
        self, channels: int, *, zero_scale: bool = False, epsilon: float = EPSILON
    ) -> None:
        scale = jnp.zeros if zero_scale else jnp.ones
        self.scale = nnx.Param(scale((channels,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((channels,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((channels,), jnp.float32))
        self.epsilon = epsilon

    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool
    ) -> Float[Array, "batch height width channels"]:
        """Normalise with the batch's statistics and record them, or with the running ones."""
        x = x.astype(jnp.float32)
        mean, var = self._record(x) if train else (self.mean[...], self.var[...])
        return (x - mean) * (self.scale[...] / jnp.sqrt(var + self.epsilon)) + self.bias[...]

    def _record(self, x: Array) -> tuple[Array, Array]:
        """Return mean and biased variance of the batch, and update the running statistics."""
        # Mean and mean square in one pass over x. Taken from the running mean, which is near the
        # batch's, the difference below does not cancel.
        origin = self.mean[...]
        offset = (x - origin).mean((0, 1, 2))
        square = jnp.square(x - origin).mean((0, 1, 2))
        mean, var = origin + offset, jnp.maximum(square - jnp.square(offset), 0.0)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        self.mean[...] = MOMENTUM * origin + (1.0 - MOMENTUM) * mean
        self.var[...] = MOMENTUM * self.var[...] + (1.0 - MOMENTUM) * unbiased
        return mean, var


class ConvNorm(nnx.Module):
    """A bias-free convolution and its BatchNorm; folded, a convolution with a bias instead."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        same_padding: bool = False,
        zero_scale: bool = False,
        epsilon: float = EPSILON,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.conv = Convolution(
            channels_in,
            channels_out,
            size,
            stride=stride,
            groups=groups,
            same_padding=same_padding,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn: BatchNorm | None = BatchNorm(channels_out, zero_scale=zero_scale, epsilon=epsilon)

    def __call__(
        self, x: Float[Array, "batch height width channels_in"], *, train: bool
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Convolve and normalise, without activation. Raises ValueError to train when folded."""
        x = self.conv(x)
        if self.bn is not None:
            return self.bn(x, train=train)
        if train:
            raise ValueError("A frozen model cannot be trained: its BatchNorm has been folded.")
        return x

    def fold(self) -> None:
        """Fold the running statistics into the convolution, and do without BatchNorm from then on.

        scale (conv(x) - mean) / sqrt(var + eps) + bias is conv(x) with its kernel times f, plus
        bias - mean f, where f = scale / sqrt(var + eps). Computed in float32; the kernel is then
        stored in the type in which it is used.
        """
        bn, conv = self.bn, self.conv
        if bn is None:
            return
        factor = bn.scale[...] / jnp.sqrt(bn.var[...] + bn.epsilon)
        conv.kernel = nnx.Param((conv.kernel[...] * factor).astype(conv.dtype))
        conv.bias = nnx.data(nnx.Param(bn.bias[...] - bn.mean[...] * factor))
        self.bn = None
