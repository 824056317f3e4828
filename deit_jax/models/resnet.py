"""ResNets of bottleneck blocks (arXiv 1512.03385, table 1; DeiT compares with them in table 5).

The stride of a stage is at its 3x3 convolution, as in torchvision and timm, not at the 1x1 before.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.architecture import ConvNetArchitecture, Stage
from deit_jax.models.convnet import ConvNet
from deit_jax.models.convnet_layers import Layers, drop_branch
from deit_jax.models.spec import ModelSpec
from deit_jax.trees import TreePath

_EXPANSION = 4
"""Channels that leave a block, over those of its 3x3 convolution."""


class Bottleneck(nnx.Module):
    """Residual block: 1x1 to the stage's width, 3x3, 1x1 to _EXPANSION times as many channels."""

    def __init__(
        self,
        channels_in: int,
        stage: Stage,
        layers: Layers,
        *,
        stride: int,
        drop_path_rate: float,
    ) -> None:
        conv, channels_out = layers.conv, stage.channels
        width = channels_out // _EXPANSION
        self.conv1 = conv(channels_in, width, 1)
        self.conv2 = conv(width, width, 3, stride=stride)
        # With a last scale of zero each block starts as the identity (arXiv 1706.02677, 5.1).
        self.conv3 = conv(width, channels_out, 1, zero_scale=True)
        keeps_shape = stride == 1 and channels_in == channels_out
        self.downsample = None if keeps_shape else conv(channels_in, channels_out, 1, stride=stride)
        self.drop_path_rate = drop_path_rate
        self.dtype = jnp.dtype(layers.dtype)

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
    """ResNet classifier; arguments as of `ConvNet`."""

    FAMILY = "resnet"
    STEM = ("conv1", "conv")
    HEADS = (("fc",),)
    SPATIAL = "conv2"
    BLOCK = Bottleneck

    @staticmethod
    def block_path(stage: int, number: int) -> TreePath:
        """Return the path of a block, both counted from 0."""
        return f"layer{stage + 1}", str(number)

    @staticmethod
    def spatial_kernel(stage: Stage, channels_in: int) -> tuple[int, int, int, int]:
        """Return the shape (OIHW) of the 3x3 kernel."""
        return stage.channels // _EXPANSION, stage.channels // _EXPANSION, stage.size, stage.size

    def _stem(self, images: Array, train: bool) -> Float[Array, "batch height_out width_out width"]:
        return max_pool(super()._stem(images, train))


def resnet_architecture(depths: tuple[int, ...], width: int = 64) -> ConvNetArchitecture:
    """Return the shape of a ResNet.

    Args:
        depths: blocks of each stage; all but the first stage halve the image.
        width: channels of the stem and of the first stage's 3x3 convolutions; doubles each stage.
    """
    stages = tuple(
        Stage(_EXPANSION * width * 2**number, depth, 2 if number else 1)
        for number, depth in enumerate(depths)
    )
    return ConvNetArchitecture((width, 7, 2), stages, stages[-1].channels)


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


def _spec(
    name: str,
    depths: tuple[int, ...],
    parameters: int,
    top1: float,
    same_tensors: tuple[str, ...] = (),
) -> ModelSpec:
    # timm's older names: weights of torchvision, of semi-supervised training, of GluonCV.
    older = (f"tv_{name}", f"ssl_{name}", f"swsl_{name}", f"gluon_{name}_v1b")
    return ModelSpec(
        name,
        ResNet,
        resnet_architecture(depths),
        image_size=(224, 224),
        parameters=parameters,
        top1=top1,
        elsewhere=older,
        same_tensors=same_tensors,
    )


# Accuracies: DeiT, table 5; later weights of the same networks reach more.
MODELS = (
    _spec("resnet50", (3, 4, 6, 3), 25_557_032, 76.2, ("resnetaa50", "resnetblur50")),
    _spec("resnet101", (3, 4, 23, 3), 44_549_160, 77.4),
    _spec("resnet152", (3, 8, 36, 3), 60_192_808, 78.3),
)
