"""Layers of the convnets: squeeze-and-excitation, stochastic depth, the linear head."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.architecture import ConvNetArchitecture
from deit_jax.models.batch_norm import ConvNorm
from deit_jax.models.convolution import Convolution
from deit_jax.models.layers import stochastic_depth

ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
}
"""By their names in timm."""


class SqueezeExcite(nnx.Module):
    """Scales each channel by a gate computed from all channels' means (arXiv 1709.01507)."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        *,
        activation: Callable[[Array], Array] = jax.nn.relu,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        self.fc1 = Convolution(channels, hidden, 1, use_bias=True, dtype=dtype, rngs=rngs)
        self.fc2 = Convolution(hidden, channels, 1, use_bias=True, dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Return `x` times its gate, in the wider type of both."""
        means = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
        return x * jax.nn.sigmoid(self.fc2(self.activation(self.fc1(means))))


class LinearHead(nnx.Module):
    """The linear head: kernel normal with deviation 0.01 as timm's RegNet, bias zero."""

    def __init__(self, features: int, classes: int, *, dtype: Any, rngs: nnx.Rngs) -> None:
        draw = jax.random.normal(rngs.params(), (features, classes), jnp.float32)
        self.kernel = nnx.Param(0.01 * draw)
        self.bias = nnx.Param(jnp.zeros((classes,), jnp.float32))
        self.dtype = jnp.dtype(dtype)

    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch classes"]:
        """Return the logits of pooled features, in float32."""
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32) + self.bias[...]


@dataclass(frozen=True)
class Layers:
    """What the layers of one model have in common: numerics, type, random numbers."""

    architecture: ConvNetArchitecture
    dtype: Any
    rngs: nnx.Rngs

    def conv(self, channels_in: int, channels_out: int, size: int, **options: Any) -> ConvNorm:
        """Make a convolution with BatchNorm."""
        return ConvNorm(
            channels_in,
            channels_out,
            size,
            same_padding=self.architecture.same_padding,
            epsilon=self.architecture.epsilon,
            dtype=self.dtype,
            rngs=self.rngs,
            **options,
        )

    def squeeze_excite(self, channels: int, hidden: int) -> SqueezeExcite:
        """Make a squeeze-and-excitation with the model's activation."""
        return SqueezeExcite(
            channels,
            hidden,
            activation=ACTIVATION_FUNCTIONS[self.architecture.activation],
            dtype=self.dtype,
            rngs=self.rngs,
        )


def drop_branch(
    branch: Float[Array, "batch height width channels"],
    rate: float,
    keys: Key[Array, " batch"] | None,
) -> Float[Array, "batch height width channels"]:
    """Stochastic depth: drop an image's whole residual branch with probability `rate`."""
    rows = branch.reshape(-1, branch.shape[-1])
    return stochastic_depth(rows, rate, keys).reshape(branch.shape)
