"""What the convnets share: squeeze-and-excitation, stochastic depth, the linear head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.convolution import Convolution
from deit_jax.models.layers import stochastic_depth

KernelShapes = dict[tuple[str, ...], tuple[int, int, int, int]]
"""Shapes (OIHW) of kernels, by the path of their convolution in the parameters."""


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
        """Return `x` times its gate, in float32."""
        means = x.mean((1, 2), keepdims=True, dtype=jnp.float32)
        return x * jax.nn.sigmoid(self.fc2(self.activation(self.fc1(means))))


class Classifier(nnx.Module):
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


def drop_branch(
    branch: Float[Array, "batch height width channels"],
    rate: float,
    keys: Key[Array, "batch"] | None,
) -> Float[Array, "batch height width channels"]:
    """Stochastic depth: drop an image's whole residual branch with probability `rate`."""
    rows = branch.reshape(-1, branch.shape[-1])
    return stochastic_depth(rows, rate, keys).reshape(branch.shape)


def check_rates(**rates: float) -> None:
    """Raise ValueError if one of these options is no probability below 1."""
    for option, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{option} is {rate}; choose a probability in [0, 1).")
