"""RegNetY, the convnet that teaches (arXiv 2003.13678, table 3 and section 5.3; DeiT, table 2)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.architecture import ConvNetArchitecture, Stage
from deit_jax.models.convnet import ConvNet
from deit_jax.models.convnet_layers import Layers, drop_branch
from deit_jax.models.spec import ModelSpec
from deit_jax.trees import TreePath

_SQUEEZE_RATIO = 0.25
"""Hidden channels of squeeze-and-excitation, over the channels that enter the block."""


class RegNetBlock(nnx.Module):
    """Residual block with bottleneck ratio 1: 1x1, grouped 3x3, squeeze-and-excitation, 1x1."""

    def __init__(
        self,
        channels_in: int,
        stage: Stage,
        layers: Layers,
        *,
        stride: int,
        drop_path_rate: float,
    ) -> None:
        conv, channels = layers.conv, stage.channels
        self.conv1 = conv(channels_in, channels, 1)
        self.conv2 = conv(
            channels, channels, 3, stride=stride, groups=channels // stage.group_width
        )
        self.se = layers.squeeze_excite(channels, round(_SQUEEZE_RATIO * channels_in))
        # With a last scale of zero each block starts as the identity (arXiv 1706.02677, 5.1).
        self.conv3 = conv(channels, channels, 1, zero_scale=True)
        keeps_shape = stride == 1 and channels_in == channels
        self.downsample = None if keeps_shape else conv(channels_in, channels, 1, stride=stride)
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
        branch = self.conv3(self.se(branch), train=train)
        branch = drop_branch(branch, self.drop_path_rate, keys)
        return jax.nn.relu(branch + shortcut).astype(self.dtype)


class RegNet(ConvNet):
    """RegNetY classifier; arguments as of `ConvNet`."""

    FAMILY = "regnet"
    STEM = ("stem", "conv")
    HEADS = (("head", "fc"),)
    SPATIAL = "conv2"
    BLOCK = RegNetBlock

    @staticmethod
    def block_path(stage: int, number: int) -> TreePath:
        """Return the path of a block, both counted from 0."""
        return f"s{stage + 1}", f"b{number + 1}"

    @staticmethod
    def spatial_kernel(stage: Stage, channels_in: int) -> tuple[int, int, int, int]:
        """Return the shape (OIHW) of the 3x3 kernel."""
        return stage.channels, stage.group_width, stage.size, stage.size


def regnet_architecture(
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    group_width: int,
    strides: tuple[int, ...] = (2, 2, 2, 2),
    stem: tuple[int, int, int] = (32, 3, 2),
) -> ConvNetArchitecture:
    """Return the shape of a RegNetY.

    Args:
        widths: channels of each stage.
        depths: blocks of each stage.
        group_width: channels in each group of the 3x3 convolutions; divides all widths.
        strides: of the first block of each stage.
        stem: channels, kernel size and stride of the first convolution.
    """
    sizes = zip(widths, depths, strides, strict=True)
    stages = tuple(Stage(*size, group_width=group_width) for size in sizes)
    return ConvNetArchitecture(stem, stages, widths[-1], squeeze_excite=True)


def _spec(
    name: str,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    group_width: int,
    parameters: int,
    top1: float = 0.0,
    torchvision: str = "",
) -> ModelSpec:
    return ModelSpec(
        name,
        RegNet,
        regnet_architecture(widths, depths, group_width),
        image_size=(224, 224),
        parameters=parameters,
        top1=top1,
        elsewhere=(torchvision,) if torchvision else (),
    )


# Widths and depths are what equations 2 to 4 of arXiv 2003.13678 give for the published
# (w0, wa, wm, depth), the widths rounded to whole groups as in timm. Accuracies: DeiT, table 2.
MODELS = (
    _spec("regnety_040", (128, 192, 512, 1088), (2, 6, 12, 2), 64, 20_646_656, 80.0),
    _spec("regnety_080", (168, 448, 896, 2016), (2, 4, 10, 1), 56, 39_180_068, 81.7),
    _spec("regnety_120", (224, 448, 896, 2240), (2, 5, 11, 1), 112, 51_822_544, 82.4),
    _spec(
        "regnety_160", (224, 448, 1232, 3024), (2, 4, 11, 1), 112, 83_590_140, 82.9, "regnet_y_16gf"
    ),
    _spec(
        "regnety_320", (232, 696, 1392, 3712), (2, 5, 12, 1), 232, 145_046_770, 0.0, "regnet_y_32gf"
    ),
    # The group width of 56 makes timm (as the table above) and torchvision round the 8GF widths
    # differently; these are torchvision's, under timm's name for them.
    _spec(
        "regnety_080_tv", (224, 448, 896, 2016), (2, 4, 10, 1), 56, 39_381_472, 0.0, "regnet_y_8gf"
    ),
    # No published design: the same blocks for images of 16x16, to try things out within seconds.
    ModelSpec(
        "regnety_micro",
        RegNet,
        regnet_architecture(
            (16, 32, 64), (1, 2, 1), group_width=16, strides=(1, 2, 2), stem=(16, 3, 2)
        ),
        image_size=(16, 16),
        parameters=37_794,
        num_classes=10,
        in_timm=False,
    ),
)
