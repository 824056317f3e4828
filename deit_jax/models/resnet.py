"""ResNets of bottleneck blocks (arXiv 1512.03385, table 1; DeiT compares with them in table 5).

The stride of a stage is at its 3x3 convolution, as in torchvision and timm, not at the 1x1 before.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.batch_norm import ConvNorm
from deit_jax.models.convnet import ConvNet, KernelShapes, LinearHead, drop_branch

EXPANSION = 4
"""Channels that leave a block, over those of its 3x3 convolution."""


@dataclass(frozen=True)
class ResNetArchitecture:
    """Shape of a ResNet.

    Attributes:
        depths: blocks of each stage; all but the first stage halve the image.
        width: channels of the stem and of the first stage's 3x3 convolutions; doubles each stage.
    """

    depths: tuple[int, ...]
    width: int = 64

    def spatial_kernels(self) -> KernelShapes:
        """Return the shapes of the kernels larger than 1x1."""
        kernels: KernelShapes = {("conv1", "conv"): (self.width, 3, 7, 7)}
        for stage, depth in enumerate(self.depths):
            width = self.width * 2**stage
            for block in range(depth):
                kernels[f"layer{stage + 1}", str(block), "conv2", "conv"] = (width, width, 3, 3)
        return kernels


class Bottleneck(nnx.Module):
    """Residual block: 1x1 to `width` channels, 3x3, 1x1 to EXPANSION times as many."""

    def __init__(
        self,
        channels_in: int,
        width: int,
        *,
        stride: int,
        drop_path_rate: float,
        dtype: Any,
        rngs: nnx.Rngs,
    ) -> None:
        conv = functools.partial(ConvNorm, dtype=dtype, rngs=rngs)
        channels_out = EXPANSION * width
        self.conv1 = conv(channels_in, width, 1)
        self.conv2 = conv(width, width, 3, stride=stride)
        # With a last scale of zero each block starts as the identity (arXiv 1706.02677, 5.1).
        self.conv3 = conv(width, channels_out, 1, zero_scale=True)
        keeps_shape = stride == 1 and channels_in == channels_out
        self.downsample = None if keeps_shape else conv(channels_in, channels_out, 1, stride=stride)
        self.drop_path_rate = drop_path_rate
        self.dtype = jnp.dtype(dtype)

    def __call__(
        self,
        x: Float[Array, "batch height width channels_in"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height_out width_out channels_out"]:
        """Run the block; `keys` decide for each image whether its residual branch is dropped."""
        shortcut = x if self.downsample is None else self.downsample(x, train=train)
        branch = jax.nn.relu(self.conv1(x, train=train)).astype(self.dtype)
        branch = jax.nn.relu(self.conv2(branch, train=train)).astype(self.dtype)
        branch = drop_branch(self.conv3(branch, train=train), self.drop_path_rate, keys)
        return jax.nn.relu(branch + shortcut).astype(self.dtype)


class ResNet(ConvNet):
    """ResNet classifier.

    Args:
        architecture: depths and width.
        num_classes: classes of the head.
        image_size: (height, width) in pixels it is meant for; any other size also runs.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth probability of the last block; rises linearly from 0 over
            all blocks.
        dtype: type of the operands of convolutions and products, and of the activations between
            them. BatchNorm is computed in float32.
        rngs: for the initialisation.

    Raises:
        ValueError: a probability is not in [0, 1).
    """

    def __init__(
        self,
        architecture: ResNetArchitecture,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            architecture.depths,
            num_classes=num_classes,
            image_size=image_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            dtype=dtype,
        )
        channels, number = architecture.width, 0
        self.conv1 = ConvNorm(3, channels, 7, stride=2, dtype=dtype, rngs=rngs)
        for stage, depth in enumerate(self.depths):
            width = architecture.width * 2**stage
            blocks = {}
            for position in range(depth):
                blocks[str(position)] = Bottleneck(
                    channels,
                    width,
                    stride=2 if stage > 0 and position == 0 else 1,
                    drop_path_rate=drop_path_rate * number / max(sum(self.depths) - 1, 1),
                    dtype=dtype,
                    rngs=rngs,
                )
                channels, number = EXPANSION * width, number + 1
            setattr(self, f"layer{stage + 1}", nnx.Dict(blocks))
        self.fc = LinearHead(channels, num_classes, dtype=dtype, rngs=rngs)

    def _head(self) -> LinearHead:
        """Return the linear head."""
        return self.fc

    def _stem(self, images: Array, train: bool) -> Float[Array, "batch height_out width_out width"]:
        return max_pool(jax.nn.relu(self.conv1(images, train=train)).astype(self.dtype))

    def _blocks(self) -> dict[str, Callable[..., Array]]:
        return {
            f"layer{stage}.{number}": getattr(self, f"layer{stage}")[str(number)]
            for stage, depth in enumerate(self.depths, 1)
            for number in range(depth)
        }


def max_pool(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height_out width_out channels"]:
    """Return the maxima of 3x3 windows at every other pixel, with a pixel of padding around."""
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), (1, 1), (1, 1), (0, 0)),
    )


def _entry(depths: tuple[int, ...], parameters: int, top1: float) -> dict[str, Any]:
    return {
        "build": functools.partial(ResNet, ResNetArchitecture(depths)),
        "image_size": (224, 224),
        "parameters": parameters,
        "num_classes": 1000,
        "top1": top1,
    }


# Accuracies: DeiT, table 5; later weights of the same networks reach more.
MODELS: dict[str, dict[str, Any]] = {
    "resnet50": _entry((3, 4, 6, 3), 25_557_032, 76.2),
    "resnet101": _entry((3, 4, 23, 3), 44_549_160, 77.4),
    "resnet152": _entry((3, 8, 36, 3), 60_192_808, 78.3),
}
