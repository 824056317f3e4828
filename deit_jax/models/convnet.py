"""What the convnets share: the frame, squeeze-and-excitation, stochastic depth, the linear head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.convolution import Convolution
from deit_jax.models.functional import HeadLogits
from deit_jax.models.layers import dropout, fold_keys, stochastic_depth

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


class ConvNet(nnx.Module):
    """A convnet classifier: feature maps, their mean over space, dropout, a linear head.

    Args:
        depths: blocks of each stage.
        num_classes: classes of the head.
        image_size: (height, width) in pixels it is meant for; any other size also runs.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth; what it means for a block is said by each family.
        dtype: type of the operands of convolutions and products, and of the activations between
            them. BatchNorm is computed in float32.

    Raises:
        ValueError: a probability is not in [0, 1).
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        num_classes: int,
        image_size: tuple[int, int],
        drop_rate: float,
        drop_path_rate: float,
        dtype: Any,
    ) -> None:
        for option, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path_rate)):
            if not 0.0 <= rate < 1.0:
                raise ValueError(f"{option} is {rate}; choose a probability in [0, 1).")
        self.num_classes = num_classes
        self.image_size = image_size
        self.has_distillation_head = False
        self.depths = depths
        self.drop_rate = drop_rate
        self.dtype = jnp.dtype(dtype)

    def _stem(self, images: Array, train: bool) -> Float[Array, "batch height_out width_out width"]:
        """Return what enters the first block."""
        raise NotImplementedError

    def _blocks(self) -> dict[str, Callable[..., Array]]:
        """All blocks by name, in order. (Iterating over a stage would put 10 before 2.)"""
        raise NotImplementedError

    def _tail(self, x: Array, train: bool) -> Float[Array, "batch height_out width_out channels"]:
        """Return what lies between the last block and the mean over space."""
        del train
        return x

    def _head(self) -> LinearHead:
        """Return the linear head, which has another name in each family."""
        raise NotImplementedError

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """Return inference logits."""
        return self.head_logits(images)[0]

    def head_logits(
        self,
        images: Float[Array, "batch height width 3"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> HeadLogits:
        """Return the class logits, and None for the distillation head there is not.

        Args:
            images: normalised.
            keys: one per image, for dropout and stochastic depth; without it neither acts.
            train: BatchNorm uses and updates the statistics of the batch.
        """
        x = self._stem(images, train)
        for number, block in enumerate(self._blocks().values()):
            x = block(x, keys=fold_keys(keys, number), train=train)
        features = self._tail(x, train).mean((1, 2), dtype=jnp.float32)
        features = dropout(features, self.drop_rate, fold_keys(keys, sum(self.depths)))
        return self._head()(features), None

    def activations(
        self, images: Float[Array, "batch height width 3"]
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Return the results of inference in order: `stem`, each block, `tail`, `head`.

        Blocks have timm's names; maps are [batch, height, width, channels].
        """
        seen = {"stem": self._stem(images, False)}
        x = seen["stem"]
        for name, block in self._blocks().items():
            x = seen[name] = block(x, keys=None, train=False)
        x = self._tail(x, False)
        # Where there is nothing between, the last block says it all.
        if x is not seen[name]:
            seen["tail"] = x
        return seen | {"head": self._head()(x.mean((1, 2), dtype=jnp.float32))}


def drop_branch(
    branch: Float[Array, "batch height width channels"],
    rate: float,
    keys: Key[Array, " batch"] | None,
) -> Float[Array, "batch height width channels"]:
    """Stochastic depth: drop an image's whole residual branch with probability `rate`."""
    rows = branch.reshape(-1, branch.shape[-1])
    return stochastic_depth(rows, rate, keys).reshape(branch.shape)
